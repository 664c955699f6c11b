"""The messages that cross between gateway, runner and engine, whatever the dialect outside.

One request model in, one event model out. They travel as msgpack (`encode`, `decode`), never as
pydantic or vLLM objects, so that no process imports an engine to talk to one.

    Generate ──► pool ──► [Delta, Delta], [Delta, Finish], [Usage]
    Embed    ──► pool ──► Embeddings

A streamed reply is a sequence of *batches*: lists of events, several to a batch when tokens come fast.
A call that is not streamed yields exactly one batch. Every reply of `Generate` ends with one `Usage`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation, in the shape every chat template understands."""

    role: Role
    content: str | list[dict[str, Any]] | None = None
    """Text, or OpenAI content parts (text, image_url, input_audio, ...)."""
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a client may say about decoding. Names and meanings are OpenAI's, then vLLM's.

    This is the allow-list: a field that is not here is never forwarded to an engine.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int = 1
    stop: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool = False
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None


class Generate(msgspec.Struct, frozen=True, omit_defaults=True, tag="generate"):
    """A call for text: a chat when `messages` is set, a completion when `prompt` is. Exactly one is."""

    request_id: str
    model: str
    max_tokens: int
    """Upper bound of generated tokens for each of the `sampling.n` choices. Always set: it was reserved."""
    deadline: float
    """Unix seconds. The engine aborts the call when it passes."""
    messages: list[Message] | None = None
    prompt: str | None = None
    sampling: Sampling = Sampling()
    stream: bool = False
    tenant: str = ""
    """Read by admission (fairness) and as the salt of the prefix cache, so that tenants share no cache."""
    priority: int = 0
    """Lower goes first, as in vLLM's priority scheduling. Never taken from a client's headers."""
    prompt_tokens: int = 0
    """Of the prompt, as the caller counted them for its reservation; 0 where nobody counted."""
    expected_tokens: int = 0
    """Output of each choice that is likely, at most `max_tokens`; 0 where nobody estimated."""
    session: str = ""
    """Calls of one session of a tenant share a beginning, and go to one replica as long as it has room."""


class Embed(msgspec.Struct, frozen=True, omit_defaults=True, tag="embed"):
    """A call for embeddings of `texts`, one vector each, in order."""

    request_id: str
    model: str
    texts: list[str]
    deadline: float
    tenant: str = ""
    priority: int = 0
    prompt_tokens: int = 0
    """As of `Generate`."""


class Delta(msgspec.Struct, frozen=True, omit_defaults=True, tag="delta"):
    """More of choice `index`."""

    text: str = ""
    index: int = 0
    tool_calls: list[dict[str, Any]] | None = None
    """OpenAI tool-call deltas."""
    logprobs: dict[str, Any] | None = None
    """OpenAI's logprobs object of these tokens."""
    engine_ns: int = 0
    """Now and then, the call's part of the engine's time so far: what is known of one that is cut off."""


class Finish(msgspec.Struct, frozen=True, omit_defaults=True, tag="finish"):
    """Choice `index` is complete."""

    reason: Literal["stop", "length", "tool_calls", "content_filter"]
    index: int = 0
    matched: str | None = None
    """Which of the call's stop strings ended it, where one did and the engine says so."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, tag="usage"):
    """What the engine counted. The last event of a reply; settlement and billing read it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens taken from the engine's prefix cache; part of `prompt_tokens`."""
    engine_ns: int = 0
    """The call's part of its engine's time, in nanoseconds; 0 where nobody measured it, as of a provider. All
    parts together are the time that the engine was busy."""

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.engine_ns + other.engine_ns,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
            self.cached_tokens - other.cached_tokens,
            self.engine_ns - other.engine_ns,
        )


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, tag="failure"):
    """An error as data: how one crosses a process. `cluster.errors` turns it back into an exception."""

    kind: str
    """Class name of a `ClusterError`."""
    message: str
    param: str | None = None
    """The field of the call at fault, for an `InvalidCall`."""
    retry_after_s: float | None = None


Event = Delta | Finish | Usage | Failure


class Embeddings(msgspec.Struct, frozen=True, omit_defaults=True, tag="embeddings"):
    """Vectors in the order of the texts, each of the model's dimension, L2-normalised."""

    vectors: list[list[float]]
    usage: Usage


class TenantState(msgspec.Struct, frozen=True):
    """Of a tenant whose calls wait for one replica."""

    tenant: str
    waiting: int
    """Calls."""
    oldest_s: float
    """How long the one waits that goes next."""
    service: float
    """What it has been served, in tokens of prompts and twice those of outputs, divided by its weight. Only
    differences between tenants mean anything."""


class AdmissionState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the queue in front of one engine is like."""

    sequences: int = 0
    """In the engine."""
    max_sequences: int = 0
    kv_tokens: int = 0
    """Booked of the engine's KV cache."""
    max_kv_tokens: int = 0
    """0 where there is no bound."""
    reading_tokens: int = 0
    """Of prompts that the engine has still to read."""
    waiting: int = 0
    """Calls."""
    max_waiting: int = 0
    waiting_tokens: int = 0
    """Of their prompts, with the output that is likely."""
    waiting_tenants: int = 0
    wait_s: float = 0.0
    """That calls have lately waited, on average."""
    tokens_per_s: float = 0.0
    """Of prompts and outputs, lately, while something waited."""
    admitted: int = 0
    refused: int = 0
    """Because the queue was full."""
    late: int = 0
    """Refused because their deadline could not be met any more. All three since the replica started."""
    tenants: list[TenantState] = []
    """Those with most calls waiting."""


class EngineStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one replica says of itself."""

    running: int = 0
    """Calls in the engine now."""
    completed: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Totals since the replica started, as the engine counts them."""
    busy_ns: int = 0
    """Nanoseconds in which there was any call."""
    untold_ns: int = 0
    """The part of them that belongs to calls which ended without a `Usage`: aborted and failed ones."""
    admission: AdmissionState | None = None
    """Of the queue in front of the engine."""
    adapters: list[str] = []
    """LoRA adapters that were loaded, in the order in which they were."""


encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Generate | Embed).decode
decode_events = msgspec.msgpack.Decoder(list[Event]).decode
decode_embeddings = msgspec.msgpack.Decoder(Embeddings | Failure).decode
decode_status = msgspec.msgpack.Decoder(EngineStatus).decode
