"""`llm`: a chat model answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, NodeSpec, TokenBound, Use
from graphs.ports import MESSAGE, STRING, Port, PortType, list_of


class Llm(NodeSpec, frozen=True, tag_field="kind", tag="llm"):
    summary: ClassVar[str] = "a chat model answers a prompt, after an optional conversation"

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of a pool that generates."""
    max_tokens: Annotated[int, Meta(ge=1, le=131_072)] = 128
    """Most tokens of the answer."""
    max_prompt_tokens: Annotated[int, Meta(ge=1, le=1_048_576)] = 1024
    """Most tokens of prompt and conversation together, as the model counts them. More is refused."""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    """0 always takes the likeliest token. Absent: the model's own default."""
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Takes only from the likeliest tokens that together have this probability. Absent: the model's own."""
    seed: int | None = None
    """Makes what is sampled repeatable, as far as the engine can."""
    stop: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    """Texts that end the answer and are left out of it."""
    system: Annotated[str, Meta(max_length=16_384)] | None = None
    """Instructions before everything else; the same in every run, so that their prefix stays cached."""
    stream: bool = False
    """Whether the answer comes out in pieces, in runs that want a stream."""

    def inputs(self) -> Mapping[str, Port]:
        return {
            "prompt": Port(STRING, description="what the user says"),
            "history": Port(list_of(MESSAGE), default=[], description="the conversation before the prompt"),
        }

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"text": STRING, "finish_reason": STRING}

    @property
    def effects(self) -> Effects:
        return "pure" if self.temperature == 0 else "idempotent"

    def uses(self) -> Sequence[Use]:
        return (Use("model", self.model, "model", task="generate"),)

    @property
    def tokens(self) -> TokenBound:
        return TokenBound(self.max_prompt_tokens, self.max_tokens)

    @property
    def streams(self) -> str | None:
        return "text" if self.stream else None

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        return {"text": value, "finish_reason": "fallback"}
