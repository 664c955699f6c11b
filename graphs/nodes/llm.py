"""`llm`: a chat model answers.

    llm: {model: smollm2, prompt: "Translate to French: {{ text }}"}
    with: {text: "${inputs.text}"}

Without a `prompt` of its own it takes the prompt as an input. With `schema` the model is held to that JSON
Schema, and what it wrote comes out parsed as `data`. With `n` it answers several times: `texts`. Who takes
`sentences` or `texts` where a stream is taken gets each while the rest is being written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from graphs.answer_schema import read_schema
from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, Fault, NodeSpec, TokenBound, Use
from graphs.nodes.templated import template_faults, template_ports, template_variables
from graphs.ports import MESSAGE, STRING, Port, PortType, list_of, stream_of
from graphs.sentences import split
from graphs.templates import MAX_TEMPLATE_CHARS, Outline, outline

HISTORY = "history"
SENTENCES = "sentences"
TEXTS = "texts"


class Llm(NodeSpec, frozen=True, dict=True, tag_field="kind", tag="llm"):
    summary: ClassVar[str] = "a chat model answers a prompt, after an optional conversation"
    open_inputs: ClassVar[bool] = True
    template_field: ClassVar[str | None] = "prompt"
    set_when_read: ClassVar[frozenset[str]] = frozenset({"use", "version"})
    derived: ClassVar[frozenset[str]] = frozenset({SENTENCES})

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of a pool that generates."""
    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_TEMPLATE_CHARS)] | None = None
    """A template, as of a prompt node: its variables are inputs of the node, in place of `prompt`. Or the
    prompt file that has it, as `prompts/answer@stable`."""
    use: str | None = None
    """That prompt file. Set when it is read."""
    version: str | None = None
    """Of that prompt. Set when it is read."""
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
    schema: dict[str, Any] | None = None
    """JSON Schema that the answer is held to. What was written comes out parsed, as the output `data`."""
    n: Annotated[int, Meta(ge=1, le=8)] = 1
    """Answers to one prompt. More than one come out as the output `texts`; `text` is the first of them."""
    stream: bool = False
    """Whether the answer comes out in pieces, in runs that want a stream."""

    def inputs(self) -> Mapping[str, Port]:
        asked = {"prompt": Port(STRING, description="what the user says")}
        return {
            **(asked if self._outline is None else template_ports(self._outline)),
            HISTORY: Port(list_of(MESSAGE), default=[], description="the conversation before the prompt"),
        }

    def variables(self) -> Mapping[str, tuple[str, int]]:
        if self._outline is None or self.use is not None:
            return {}
        return template_variables(self._outline, "prompt")

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        ports = {"text": stream_of(STRING) if self.stream else STRING, "finish_reason": STRING}
        if self.n > 1:
            ports[TEXTS] = stream_of(list_of(STRING))
        elif self.schema is None:
            ports[SENTENCES] = stream_of(list_of(STRING))
        if self.schema is not None:
            ports["data"] = read_schema(self.schema).type
        return ports

    def faults(self) -> Sequence[Fault]:
        return list(self._faults())

    def _faults(self) -> Iterator[Fault]:
        if self._outline is not None:
            yield from template_faults(self._outline, "prompt")
            if HISTORY in self._outline.variables:
                line = self._outline.variables[HISTORY]
                message = "the conversation goes to the model as it is, and is no variable"
                yield Fault("bad-template", message, "prompt", line, HISTORY, "give it in with: history")
        if self.schema is not None:
            for fault in read_schema(self.schema).faults:
                yield Fault(
                    "bad-schema",
                    fault.message,
                    "schema",
                    hint=fault.hint,
                    inside=fault.path,
                    on_key=fault.on_key,
                )
        if self.n > 1 and self.stream:
            yield Fault("bad-value", "only a single answer can be streamed", "stream", hint="n is 1 then")
        if self.n > 1 and self.schema is not None:
            yield Fault("bad-value", "only a single answer can be held to a schema", "n")

    @cached_property
    def _outline(self) -> Outline | None:
        """Of its own prompt. Kept, since every stage of a compilation asks for the ports."""
        return None if self.prompt is None else outline(self.prompt)

    @property
    def effects(self) -> Effects:
        return "pure" if self.temperature == 0 else "idempotent"

    @property
    def repeatable(self) -> bool:
        return self.temperature == 0 or self.seed is not None

    def uses(self) -> Sequence[Use]:
        window = TokenBound(self.max_prompt_tokens, self.max_tokens)
        return (Use("model", self.model, "model", task="generate", window=window),)

    @property
    def tokens(self) -> TokenBound:
        return TokenBound(self.max_prompt_tokens, self.max_tokens * self.n)

    @property
    def streams(self) -> str | None:
        return "text" if self.stream else None

    def derive(self, port: str, outputs: Mapping[str, Any], /) -> Any:
        return split(outputs["text"]) if port == SENTENCES else super().derive(port, outputs)

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        if self.schema is not None:
            if read_schema(self.schema).misfit(value) is not None:
                return None
            text = msgspec.json.encode(value).decode()
            return {"text": text, "finish_reason": "fallback", "data": value}
        several = {TEXTS: [value]} if self.n > 1 else {}
        return {"text": value, "finish_reason": "fallback", **several}
