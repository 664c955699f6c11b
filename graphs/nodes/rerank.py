"""`rerank`: a model compares documents with a query, and the nearest are kept, the nearest first.

rerank: {model: minilm, top_n: 3}
with: {query: "${inputs.question}", documents: "${search.documents}"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, NodeSpec, TokenBound, Use
from graphs.ports import DOCUMENT, STRING, Port, PortType, list_of

MAX_DOCUMENTS = 256


class Rerank(NodeSpec, frozen=True, tag_field="kind", tag="rerank"):
    summary: ClassVar[str] = "sorts documents by their similarity to a query and keeps the nearest"

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of a pool that embeds."""
    top_n: Annotated[int, Meta(ge=1, le=MAX_DOCUMENTS)] = 3
    """Most documents to keep."""
    max_prompt_tokens: Annotated[int, Meta(ge=1, le=1_048_576)] = 4096
    """Most tokens of the query and all documents together. More is refused."""

    def inputs(self) -> Mapping[str, Port]:
        return {
            "query": Port(STRING, description="what they are compared with"),
            "documents": Port(list_of(DOCUMENT), description=f"at most {MAX_DOCUMENTS}"),
        }

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"documents": list_of(DOCUMENT)}

    def uses(self) -> Sequence[Use]:
        # Each document has to fit the model, not all of them: the engine refuses one that does not.
        return (Use("model", self.model, "model", task="embed", window=TokenBound()),)

    @property
    def tokens(self) -> TokenBound:
        return TokenBound(prompt=self.max_prompt_tokens)
