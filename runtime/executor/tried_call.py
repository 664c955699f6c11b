"""What runs a node knows of its call beside what the node itself may know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from cluster.messages import Usage
from graphs.pipeline import RetryOn
from runtime.events import Source
from runtime.executor.kinds.kind import NodeCall, Values


class TriedCall(NodeCall, Protocol):
    """A call that can be tried more than once, or answered from elsewhere."""

    deadline: float
    """Unix seconds. Set for each try."""
    attempt: int
    """Of the try that it is at: 1, or that at which an earlier attempt at the run had arrived."""
    source: Source
    """Where its outputs come from. Set for each try."""

    @property
    def spoken(self) -> bool:
        """Whether text of it, or of a node inside it, has left, or an item that somebody has read."""
        ...

    @property
    def followed(self) -> bool:
        """Whether somebody reads an output of it while it is made."""
        ...

    @property
    def values(self) -> Sequence[Any]:
        """The slots around the bodies of the node."""
        ...

    @property
    def cost(self) -> Usage:
        """What it has come to so far, with all that was done inside it."""
        ...

    def retried(self, attempt: int, reason: RetryOn) -> None:
        """Reports that try number `attempt` begins, and why the one before failed."""

    def fell_back(self, attempt: int, to: str, reason: RetryOn) -> None:
        """Reports that something else takes the place of the node."""


Try = Callable[[TriedCall, Values], Awaitable[Values]]
"""As a `Perform`, of a call that can be tried."""
