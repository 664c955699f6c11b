"""`branch`: the first case whose condition holds is run, and no other.

    branch:
      - when: inputs.level == "easy"
        llm: {model: tiny}
        with: {prompt: "${ask.text}"}
      - llm: {model: big}
        with: {prompt: "${ask.text}"}

Cases give outputs of the same names. Where a name is missing in a case, or no case applies, it is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from graphs.nodes.spec import NO_BODIES, BodyTypes, NodeSpec, TokenBound, largest
from graphs.ports import Port, PortType, common, optional


class Branch(NodeSpec, frozen=True, tag_field="kind", tag="branch"):
    summary: ClassVar[str] = "runs the first of its cases whose condition holds"
    holds_nodes: ClassVar[bool] = True
    set_when_read: ClassVar[frozenset[str]] = frozenset({"exhaustive"})

    exhaustive: bool = False
    """Whether its last case has no condition, so that one always applies. Set when it is read."""

    def inputs(self) -> Mapping[str, Port]:
        return {}

    def outputs(
        self, _given: Mapping[str, PortType], bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return either(bodies, always=self.exhaustive)

    def place(self, body: str, /) -> tuple[str | int, ...]:
        return (self.kind(), int(body))

    def bound(self, bodies: Mapping[str, TokenBound], /) -> TokenBound:
        return largest(bodies.values())

    def visits(self, bodies: Sequence[str], /) -> Mapping[str, float]:
        return dict.fromkeys(bodies, 1 / len(bodies))


def either(bodies: BodyTypes, *, always: bool) -> dict[str, PortType]:
    """The outputs of whichever one of several bodies is run; optional where it may be none that has them."""
    names = {name: None for body in bodies.values() for name in body}
    result = {}
    for name in names:
        types = [body[name] for body in bodies.values() if name in body]
        widest = common(types)
        sure = always and len(types) == len(bodies)
        result[name] = widest if sure or widest.name in ("any", "optional") else optional(widest)
    return result
