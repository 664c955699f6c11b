"""`agent`: a chat model that calls tools, one after the other, until it has an answer.

    agent:
      model: smollm2
      max_steps: 4
      tools:
        search:
          description: Finds passages of the manual
          inputs: {query: string}
          nodes:
            vector: {embed: {model: minilm}, with: {text: "${args.query}"}}
            hits: {retrieve: {index: manual}, with: {embedding: "${vector.embedding}"}}
          outputs: {passages: "${hits.documents}"}
    with: {prompt: "${inputs.question}"}

A tool is a body: any nodes, a subgraph or an MCP tool among them. The model is held to a JSON schema of the
tools and their inputs, so it calls nothing else. Steps and tokens are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, NodeSpec, TokenBound, Use, largest
from graphs.ports import MESSAGE, OBJECT, STRING, Port, PortType, list_of

ARGS = "args"
"""What a tool's nodes call its inputs."""


class AgentTool(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tool, as the model is told of it."""

    description: Annotated[str, Meta(min_length=1, max_length=1_000)]
    """What it does, in words that the model reads."""
    inputs: Mapping[str, Port] = {}
    """What the model gives it."""


class Agent(NodeSpec, frozen=True, tag_field="kind", tag="agent"):
    summary: ClassVar[str] = "a chat model calls tools until it has an answer, in bounded steps"
    holds_nodes: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"tools": {"a": {"description": "does something"}}}

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """Name of a pool that generates."""
    tools: Annotated[Mapping[str, AgentTool], Meta(min_length=1, max_length=64)]
    """What it may call."""
    max_steps: Annotated[int, Meta(ge=1, le=50)] = 6
    """Most calls of the model. In the last it has to answer."""
    max_tokens: Annotated[int, Meta(ge=1, le=131_072)] = 256
    """Most tokens of each of its calls or answers."""
    max_prompt_tokens: Annotated[int, Meta(ge=1, le=1_048_576)] = 2048
    """Most tokens that it reads at once. When what it has done no longer fits, it has to answer."""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    """0 always takes the likeliest token. Absent: the model's own default."""
    system: Annotated[str, Meta(max_length=16_384)] | None = None
    """Instructions before everything else."""

    def inputs(self) -> Mapping[str, Port]:
        return {
            "prompt": Port(STRING, description="what the user says"),
            "history": Port(list_of(MESSAGE), default=[], description="the conversation before the prompt"),
        }

    def locals(self, body: str, _given: Mapping[str, PortType], /) -> BodyTypes:
        tool = self.tools.get(body)
        return {ARGS: {} if tool is None else {name: port.type for name, port in tool.inputs.items()}}

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"text": STRING, "steps": list_of(OBJECT)}

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        return {"text": value, "steps": []}

    def place(self, body: str, /) -> tuple[str | int, ...]:
        return (self.kind(), "tools", body)

    @property
    def most_visits(self) -> int:
        return self.max_steps

    @property
    def streams(self) -> str | None:
        return "text"

    @property
    def effects(self) -> Effects:
        return "idempotent"

    def uses(self) -> Sequence[Use]:
        return (Use("model", self.model, "model", task="generate", window=self._window),)

    @property
    def tokens(self) -> TokenBound:
        return self._window.times(self.max_steps)

    @property
    def _window(self) -> TokenBound:
        """Of one call."""
        return TokenBound(self.max_prompt_tokens, self.max_tokens)

    def bound(self, bodies: Mapping[str, TokenBound], /) -> TokenBound:
        return self.tokens + largest(bodies.values()).times(self.max_steps)

    def visits(self, bodies: Sequence[str], /) -> Mapping[str, float]:
        return dict.fromkeys(bodies, (1 + self.max_steps) / 2 / len(bodies))
