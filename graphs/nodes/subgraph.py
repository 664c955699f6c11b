"""`subgraph`: another pipeline, run as a node. Its inputs and outputs are the node's.

subgraph: {graph: support-rag}
with: {question: "${inputs.question}"}

`support-rag@1.2.0` is that version of it; without one it is the newest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from graphs.nodes.map import BODY
from graphs.nodes.spec import NO_BODIES, BodyTypes, NodeSpec, TokenBound
from graphs.ports import Port, PortType

MAX_REFERENCE_CHARS = 256


class Subgraph(NodeSpec, frozen=True, tag_field="kind", tag="subgraph"):
    summary: ClassVar[str] = "runs another pipeline"
    holds_nodes: ClassVar[bool] = True
    open_inputs: ClassVar[bool] = True
    set_when_read: ClassVar[frozenset[str]] = frozenset({"ports"})
    closed: ClassVar[bool] = True

    graph: Annotated[str, Meta(min_length=1, max_length=MAX_REFERENCE_CHARS)]
    """Name of a pipeline that is deployed beside this one: its newest version, or that of NAME@VERSION."""
    ports: Mapping[str, Port] = {}
    """The inputs of that pipeline. Set when it is read."""

    def inputs(self) -> Mapping[str, Port]:
        return self.ports

    def locals(self, _body: str, _given: Mapping[str, PortType], /) -> BodyTypes:
        return {"inputs": {name: port.type for name, port in self.ports.items()}}

    def outputs(
        self, _given: Mapping[str, PortType], bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return bodies.get(BODY, {})

    def bound(self, bodies: Mapping[str, TokenBound], /) -> TokenBound:
        return bodies[BODY]

    def visits(self, _bodies: Sequence[str], /) -> Mapping[str, float]:
        return {BODY: 1.0}
