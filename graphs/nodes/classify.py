"""`classify`: a model gives a text one label of a fixed set.

    classify:
      model: minilm
      labels: {positive: the writer is content, negative: the writer complains}
    with: {text: "${inputs.review}"}

A generating model is held to the labels; an embedding one takes the nearest description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from graphs.nodes.choices import Choices, choice_bound
from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, NodeSpec, TokenBound, Use
from graphs.ports import NUMBER, STRING, Port, PortType, optional


class Classify(NodeSpec, frozen=True, tag_field="kind", tag="classify"):
    summary: ClassVar[str] = "a model gives a text one label of a fixed set"
    example: ClassVar[Mapping[str, Any]] = {"labels": {"yes": "it agrees", "no": "it does not"}}

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of a pool that generates or embeds."""
    labels: Choices
    """By label: when it fits, in words that the model reads."""
    max_prompt_tokens: Annotated[int, Meta(ge=1, le=131_072)] = 512
    """Most tokens of the text and the descriptions together. More is refused."""

    def inputs(self) -> Mapping[str, Port]:
        return {"text": Port(STRING, description="what to label")}

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"label": STRING, "confidence": optional(NUMBER)}

    @property
    def effects(self) -> Effects:
        return "idempotent"

    @property
    def repeatable(self) -> bool:
        return True  # it always takes the likeliest label

    def uses(self) -> Sequence[Use]:
        return (Use("model", self.model, "model"),)

    @property
    def tokens(self) -> TokenBound:
        return choice_bound(self.max_prompt_tokens, self.labels)

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        return {"label": value, "confidence": None}
