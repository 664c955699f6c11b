"""`tool`: a tool of a server that speaks the Model Context Protocol.

    tool: {server: tickets, tool: search}
    with: {query: "${inputs.question}", limit: 5}

What is in `with` are the arguments. Which servers there are says the deploy config; whether a server has the
tool, and what it takes, is known when it is first called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import msgspec
from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, NodeSpec, Use
from graphs.ports import ANY, STRING, Port, PortType


class Tool(NodeSpec, frozen=True, tag_field="kind", tag="tool"):
    summary: ClassVar[str] = "calls a tool of an MCP server"
    open_inputs: ClassVar[bool] = True
    set_when_read: ClassVar[frozenset[str]] = frozenset({"arguments"})

    server: Annotated[str, Meta(min_length=1, max_length=64)]
    """Name of a server of the deploy config."""
    tool: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of one of its tools."""
    arguments: tuple[str, ...] = ()
    """Names of the arguments: those in `with`, sorted. Set when it is read."""

    def taking(self, arguments: Iterable[str]) -> Self:
        """With arguments of these names."""
        return msgspec.structs.replace(self, arguments=tuple(sorted(arguments)))

    def inputs(self) -> Mapping[str, Port]:
        return {name: Port(ANY) for name in self.arguments}

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"text": STRING, "data": ANY}

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        if isinstance(value, str):
            return {"text": value, "data": None}
        return {"text": msgspec.json.encode(value).decode(), "data": value}

    @property
    def effects(self) -> Effects:
        return "effectful"

    def uses(self) -> Sequence[Use]:
        return (Use("server", self.server, "server"),)
