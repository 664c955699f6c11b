"""How many tokens a call owes, known at every moment of it.

What is exact stays exact: once the engine's `Usage` arrives, that is what is owed. A call that is cut off
before owes an upper bound of what was done for it, never more than was reserved.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from cluster.errors import ClusterError
from cluster.interface import Batch, Pool
from cluster.messages import Delta, Generate, Usage
from runtime.events import RunEvent, RunFailed, RunFinished, RunSuspended, Tally


class Meter(Protocol):
    """Counts one call."""

    @property
    def usage(self) -> Usage | None:
        """What the engine counted, once it said so."""
        ...

    @property
    def begun(self) -> bool:
        """Whether anything came back. A call that failed before that owes nothing."""
        ...

    @property
    def owed(self) -> int:
        """Tokens to settle if the call ended now."""
        ...

    def observe(self, batch: Batch) -> None: ...


class GenerateMeter:
    """Counts a call of one model."""

    def __init__(self, pool: Pool, call: Generate, prompt_tokens: int) -> None:
        self._pool = pool
        self._call = call
        self._prompt_tokens = prompt_tokens
        self._deltas: list[Delta] = []
        self.usage: Usage | None = None

    @property
    def begun(self) -> bool:
        return self.usage is not None or bool(self._deltas)

    @property
    def owed(self) -> int:
        """A stream owes its prompt and what it has sent. A call that is not streamed was counted by nobody
        when it is cut off: it owes all it might have generated."""
        if self.usage is not None:
            return self.usage.total_tokens
        if not self._call.stream:
            return self._prompt_tokens + self._call.max_tokens * self._call.sampling.n
        return self._prompt_tokens + self._observed_tokens()

    def observe(self, batch: Batch) -> None:
        for event in batch:
            if isinstance(event, Delta):
                self._deltas.append(event)
            elif isinstance(event, Usage):
                self.usage = event

    def _observed_tokens(self) -> int:
        """A delta may hold several tokens: its text is counted with the model's own tokenizer."""
        text = "".join(delta.text for delta in self._deltas)
        if not text:
            return len(self._deltas)
        probe = msgspec.structs.replace(self._call, messages=None, prompt=text)
        try:
            return max(len(self._deltas), self._pool.count_tokens(probe))
        except ClusterError:
            return max(len(self._deltas), len(text.encode()))


class EmbedMeter:
    """Counts a call for embeddings: its prompt is all there is."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self.usage: Usage | None = None

    @property
    def begun(self) -> bool:
        return self.usage is not None

    @property
    def owed(self) -> int:
        return self._prompt_tokens if self.usage is None else self.usage.total_tokens

    def observe(self, batch: Batch) -> None:
        """Embeddings come in no batches; whoever gets them sets `usage`."""


class RunMeter:
    """Counts a run of a graph from its events."""

    def __init__(self, before: int = 0) -> None:
        """`before`: tokens in the run's totals that somebody was charged for already."""
        self._before = before
        self._tally = Tally()
        self.usage: Usage | None = None

    @property
    def begun(self) -> bool:
        return self.owed > 0

    @property
    def owed(self) -> int:
        return max(0, self._tally.usage.total_tokens - self._before)

    def count(self, events: Iterable[RunEvent]) -> None:
        for event in events:
            self._tally.add(event)
            if isinstance(event, RunFinished | RunFailed | RunSuspended):
                self.usage = event.usage

    def observe(self, batch: Batch) -> None:
        """The batches of a reply repeat the run's events, which are counted already."""
