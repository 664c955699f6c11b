"""`map`: its body runs once for each item of a list, several at a time; results keep the order of the items.

    map:
      over: ${expand.texts}
      as: query
      nodes:
        vector: {embed: {model: minilm}, with: {text: "${query}"}}
        search: {retrieve: {index: manual}, with: {embedding: "${vector.embedding}"}}
      outputs: {hits: "${search.documents}"}

The body sees the item as `${query}` and its place as `${query.index}`, from 0. What it gives of type T comes
out as list[T], or as `reduce` says. Where `over` is a list that is still being made, its nodes begin with
each item when that is there; and what is collected can be read in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, NodeSpec, TokenBound
from graphs.ports import (
    ANY,
    BOOLEAN,
    EMBEDDING,
    INTEGER,
    NUMBER,
    STRING,
    Port,
    PortType,
    list_of,
    optional,
    stream_of,
    whole,
)

Reducer = Literal["collect", "flatten", "join", "sum", "min", "max", "any", "all"]
"""`collect`: the list of all. `flatten`: lists put one behind the other. `join`: texts, an empty line between
them. `sum`, `min`, `max` of numbers; `any`, `all` of booleans. All but `collect` leave out what is absent."""

Order = Literal["items", "completed"]

TYPICAL_ITEMS = 8
"""For estimates, before anything was measured."""
BODY = "body"
"""Key of the body, in kinds that have exactly one."""


class Map(NodeSpec, frozen=True, tag_field="kind", tag="map"):
    summary: ClassVar[str] = "runs its nodes once for each item of a list, several at a time"
    holds_nodes: ClassVar[bool] = True
    among_settings: ClassVar[frozenset[str]] = frozenset({"over"})

    as_: Annotated[str, Meta(min_length=1, max_length=64)] = msgspec.field(default="item", name="as")
    """What its nodes call the item."""
    max_concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """Most items at a time."""
    max_items: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Most items. A longer list is refused."""
    order: Order = "items"
    """In which order the results are put together: that of the items, or that in which they are completed."""
    reduce: Mapping[str, Reducer] = {}
    """By output: how the results of the items are put together, where they are not collected in a list."""

    def inputs(self) -> Mapping[str, Port]:
        return {"over": Port(stream_of(list_of(ANY)), description="the items")}

    def locals(self, _body: str, given: Mapping[str, PortType], /) -> BodyTypes:
        return {self.as_: {"value": _item(given.get("over", ANY)), "index": INTEGER}}

    def outputs(
        self, _given: Mapping[str, PortType], bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {
            name: reduced(self.reduce.get(name, "collect"), port_type)
            for name, port_type in bodies.get(BODY, {}).items()
        }

    @property
    def effects(self) -> Effects:
        return "pure" if self.order == "items" else "idempotent"

    @property
    def most_visits(self) -> int:
        return self.max_items

    def bound(self, bodies: Mapping[str, TokenBound], /) -> TokenBound:
        return bodies[BODY].times(self.max_items)

    def visits(self, _bodies: Sequence[str], /) -> Mapping[str, float]:
        return {BODY: min(TYPICAL_ITEMS, self.max_items)}


def reduced(reducer: Reducer, port_type: PortType) -> PortType:
    """The type of many values of a type, put together. Of no values there is no least and no most."""
    match reducer:
        case "collect":
            return stream_of(list_of(port_type))
        case "flatten":
            return list_of(_item(port_type))
        case "join":
            return STRING
        case "any" | "all":
            return BOOLEAN
        case "sum":
            return port_type if port_type == INTEGER else NUMBER
        case _:
            return optional(port_type if port_type == INTEGER else NUMBER)


def _item(port_type: PortType) -> PortType:
    port_type = whole(port_type)
    if port_type.name == "optional" and port_type.item is not None:
        port_type = port_type.item
    if port_type == EMBEDDING:
        return NUMBER
    return port_type.item if port_type.name == "list" and port_type.item is not None else ANY
