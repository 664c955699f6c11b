"""The two ways in which a node can run, and what it is given.

A kind's file has one function `prepare(spec, resources)`, called once for each node when a plan is loaded.
What it gives back is called for each run: an `Evaluate` on the spot, a `Perform` awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from cluster.interface import Pool
from cluster.messages import Usage
from graphs.documents import Document

Values = dict[str, Any]
"""By port. Values are shared between nodes and never changed."""

Evaluate = Callable[[Values], Values]
"""Inputs to outputs, in microseconds, without waiting. Raises `ClusterError`."""


class Searchable(Protocol):
    """What a `retrieve` node needs of an index."""

    def search(self, vector: list[float], top_k: int) -> list[Document]: ...


class Resources(msgspec.Struct, frozen=True):
    """What plans may call, by name."""

    pools: Mapping[str, Pool]
    indexes: Mapping[str, Searchable]


class NodeCall(Protocol):
    """One run of one node, as the node sees it."""

    @property
    def request_id(self) -> str:
        """Unique over all calls of all runs."""
        ...

    @property
    def node(self) -> str: ...

    @property
    def deadline(self) -> float:
        """Unix seconds."""
        ...

    @property
    def tenant(self) -> str: ...

    @property
    def priority(self) -> int:
        """Of the run and of the step together; lower goes first."""
        ...

    @property
    def stream(self) -> bool:
        """Whether anybody wants deltas."""
        ...

    def called(self, model: str, prompt_tokens: int) -> None:
        """Reports a model call; until `owe` says better, its prompt is owed."""

    def owe(self, usage: Usage) -> None:
        """Sets what the node owes."""

    async def delta(self, text: str) -> None:
        """Reports more text. Waits while the reader of the run is behind."""


Perform = Callable[[NodeCall, Values], Awaitable[Values]]
"""Inputs to outputs, with calls to other processes. Cancelling it ends them. Raises `ClusterError`."""
