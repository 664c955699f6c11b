"""`embed`: a model turns a text into a vector.

embed: {model: minilm}
with: {text: "${inputs.question}"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, NodeSpec, TokenBound, Use
from graphs.ports import EMBEDDING, STRING, Port, PortType


class Embed(NodeSpec, frozen=True, tag_field="kind", tag="embed"):
    summary: ClassVar[str] = "a model turns a text into a vector"

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of a pool that embeds."""
    max_prompt_tokens: Annotated[int, Meta(ge=1, le=131_072)] = 256
    """Most tokens of the text, as the model counts them. More is refused."""

    def inputs(self) -> Mapping[str, Port]:
        return {"text": Port(STRING, description="what to embed")}

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"embedding": EMBEDDING}

    def uses(self) -> Sequence[Use]:
        return (Use("model", self.model, "model", task="embed"),)

    @property
    def tokens(self) -> TokenBound:
        return TokenBound(prompt=self.max_prompt_tokens)
