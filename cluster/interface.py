"""The seam between those who call models and those who run them.

`Engine` is what a replica hosts; `Pool` is what a gateway or runner holds. The fake implements the same
seam as vLLM, and `tests/conformance` runs one suite over every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Literal, Protocol, runtime_checkable

import msgspec

from cluster.messages import Delta, Embed, Embeddings, EngineStatus, Finish, Generate, Usage

Batch = list[Delta | Finish | Usage]
"""Events that left the engine together."""


class ModelInfo(msgspec.Struct, frozen=True):
    """What a caller must know of a model to prepare a call."""

    name: str
    task: Literal["generate", "embed"]
    max_context: int
    """Tokens of prompt and output together."""
    default_max_tokens: int
    """Output bound when the caller names none."""
    owned_by: str = "cluster-graph-hybrid"
    created: int = 0
    """Unix seconds, for OpenAI's model object."""
    version: str = ""
    """Another one where the same call may be answered differently."""
    base: str = ""
    """Of a LoRA adapter, the model on whose replicas it runs."""
    keeps_prefixes: bool = False
    """Whether its engines keep the beginnings of the prompts that they have read, and calls that begin so go
    to one that has."""
    calls_tools: bool = True
    """Whether calls of tools come back as such. Of a provider's model only the provider knows."""


class Engine(Protocol):
    """One running model in one process."""

    def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        """Batches of events; exactly one batch when `call.stream` is false; `Usage` last.

        Closing the iterator aborts the call in the engine. Raises `ClusterError`.
        """
        ...

    async def embed(self, call: Embed) -> Embeddings:
        """Raises `ClusterError`."""
        ...

    async def check_health(self) -> None:
        """Raises when the engine cannot serve any more and its replica must be replaced."""
        ...

    async def status(self) -> EngineStatus: ...


@runtime_checkable
class Watched(Protocol):
    """An engine that can be asked how far its calls are."""

    def produced(self) -> Mapping[str, int]:
        """Output tokens so far of the calls in it, by request id; 0 as long as the prompt is read."""
        ...


@runtime_checkable
class Observed(Protocol):
    """A pool whose replicas can be asked how they are."""

    async def statuses(self) -> list[EngineStatus]:
        """Of every replica that answers soon, in no order. Never raises, never waits long."""
        ...


class Pool(Protocol):
    """All replicas of one model, or a remote provider: whoever holds it does not care which."""

    @property
    def info(self) -> ModelInfo: ...

    def count_tokens(self, call: Generate | Embed) -> int:
        """Prompt tokens of the call: exact where the model's tokenizer is at hand, else an upper bound.

        Local: no network, no hop. Raises `InvalidCall`.
        """
        ...

    def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        """As `Engine.generate`, on some replica. Closing the iterator aborts the call there."""
        ...

    async def embed(self, call: Embed) -> Embeddings: ...

    async def ready(self) -> bool:
        """Whether a warmed-up replica can answer now. Never raises, never waits long."""
        ...
