"""`router`: a model reads a text and chooses which one of several bodies is run.

    router:
      model: smollm2
      choices:
        small:
          description: a greeting or a short factual question
          llm: {model: tiny}
          with: {prompt: "${inputs.question}"}
        large:
          description: a question that needs thought
          llm: {model: big}
          with: {prompt: "${inputs.question}"}
    with: {text: "${inputs.question}"}

A generating model is held to the names of the choices; an embedding one takes the nearest description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from graphs.nodes.branch import either
from graphs.nodes.choices import Choices, choice_bound
from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, NodeSpec, TokenBound, Use, largest
from graphs.ports import STRING, Port, PortType


class Router(NodeSpec, frozen=True, tag_field="kind", tag="router"):
    summary: ClassVar[str] = "a model chooses which one of several bodies is run"
    holds_nodes: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"choices": {"a": "one", "b": "another"}}

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of a pool that generates or embeds."""
    choices: Choices
    """By name of a choice: what it is for, in words that the model reads."""
    max_prompt_tokens: Annotated[int, Meta(ge=1, le=131_072)] = 512
    """Most tokens of the text and the descriptions together. More is refused."""

    def inputs(self) -> Mapping[str, Port]:
        return {"text": Port(STRING, description="what the choice is made by")}

    def outputs(
        self, _given: Mapping[str, PortType], bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {**either(bodies, always=True), "choice": STRING}

    def place(self, body: str, /) -> tuple[str | int, ...]:
        return (self.kind(), "choices", body)

    @property
    def effects(self) -> Effects:
        return "idempotent"

    def uses(self) -> Sequence[Use]:
        return (Use("model", self.model, "model"),)

    @property
    def tokens(self) -> TokenBound:
        return choice_bound(self.max_prompt_tokens, self.choices)

    def bound(self, bodies: Mapping[str, TokenBound], /) -> TokenBound:
        return self.tokens + largest(bodies.values())

    def visits(self, bodies: Sequence[str], /) -> Mapping[str, float]:
        return dict.fromkeys(bodies, 1 / len(bodies))
