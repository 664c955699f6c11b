"""`retrieve`: the documents of an index that are nearest to a vector.

retrieve: {index: manual}
with: {embedding: "${vector.embedding}", top_k: 5}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, NodeSpec, Use
from graphs.ports import DOCUMENT, EMBEDDING, INTEGER, Port, PortType, list_of

MAX_TOP_K = 100


class Retrieve(NodeSpec, frozen=True, tag_field="kind", tag="retrieve"):
    summary: ClassVar[str] = "finds the documents of an index that are nearest to a vector"

    index: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of an index. It must have been built with the model that made the vector."""

    def inputs(self) -> Mapping[str, Port]:
        return {
            "embedding": Port(EMBEDDING, description="what to look for"),
            "top_k": Port(
                INTEGER,
                default=3,
                description="most documents to find",
                constraints={"minimum": 1, "maximum": MAX_TOP_K},
            ),
        }

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"documents": list_of(DOCUMENT)}

    def uses(self) -> Sequence[Use]:
        return (Use("index", self.index, "index"),)
