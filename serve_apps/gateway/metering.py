"""What a call owes, known at every moment of it: tokens, the engine's time, money.

What is exact stays exact: once the engine's `Usage` arrives, that is what is owed. A call that is cut off
before owes an upper bound of the tokens it had, never more than was reserved, and the part of the engine's
time that it had been told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import perf_counter
from typing import Protocol

import msgspec

from cluster.errors import ClusterError
from cluster.interface import Batch, Pool
from cluster.messages import Delta, Generate, Usage
from runtime.events import NodeDelta, RunEvent, RunFailed, RunFinished, RunSuspended, Tally
from serve_apps.accounting.model import Share
from serve_apps.accounting.prices import NANOSECONDS, nanodollars
from serve_apps.accounting.splitting import NodeTally, fitted, since
from serve_apps.gateway.demand import FREE, Price


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

    @property
    def failed(self) -> bool:
        """Whether the reply tells of a failure, so that telling it whole is no success."""
        ...

    @property
    def first_token_s(self) -> float | None:
        """Seconds until the first of the reply came; None where nothing has, or all comes at once."""
        ...

    def shares(self, most: int | None = None) -> list[Share]:
        """What each model did for the call, as of now: together what is owed, or `most` tokens of it."""
        ...

    def observe(self, batch: Batch) -> None: ...


class GenerateMeter:
    """Counts a call of one model."""

    failed = False

    def __init__(self, pool: Pool, call: Generate, prompt_tokens: int, price: Price = FREE) -> None:
        self._pool = pool
        self._call = call
        self._prompt_tokens = prompt_tokens
        self._price = price
        self._began = perf_counter()
        self._deltas: list[Delta] = []
        self._engine_ns = 0
        self.usage: Usage | None = None
        self.first_token_s: float | None = None

    def cut(self, call: Generate) -> None:
        """Counts this call instead, which is the same with less output; before it is made."""
        self._call = call

    @property
    def begun(self) -> bool:
        return self.usage is not None or bool(self._deltas)

    @property
    def owed(self) -> int:
        return self._owed().total_tokens

    def shares(self, most: int | None = None) -> list[Share]:
        return [share_of(self._call.model, "", at_most(self._owed(), most), self._price)]

    def observe(self, batch: Batch) -> None:
        for event in batch:
            if isinstance(event, Delta):
                if self.first_token_s is None and self._call.stream:
                    self.first_token_s = perf_counter() - self._began
                self._engine_ns = event.engine_ns or self._engine_ns
                self._deltas.append(event)
            elif isinstance(event, Usage):
                self.usage = event

    def _owed(self) -> Usage:
        """A stream owes its prompt and what it has sent. A call that is not streamed was counted by nobody
        when it is cut off: it owes all it might have generated, and all the time that it had, where that
        costs something."""
        if self.usage is not None:
            return self.usage
        if self._call.stream:
            return Usage(self._prompt_tokens, self._observed_tokens(), engine_ns=self._engine_ns)
        waited = perf_counter() - self._began if self._price.second else 0.0
        most = self._call.max_tokens * self._call.sampling.n
        return Usage(self._prompt_tokens, most, engine_ns=int(waited * NANOSECONDS))

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

    failed = False
    first_token_s: float | None = None

    def __init__(self, model: str, prompt_tokens: int, price: Price = FREE) -> None:
        self._model = model
        self._prompt_tokens = prompt_tokens
        self._price = price
        self.usage: Usage | None = None

    @property
    def begun(self) -> bool:
        return self.usage is not None

    @property
    def owed(self) -> int:
        return self._owed().total_tokens

    def shares(self, most: int | None = None) -> list[Share]:
        return [share_of(self._model, "", at_most(self._owed(), most), self._price)]

    def observe(self, batch: Batch) -> None:
        """Embeddings come in no batches; whoever gets them sets `usage`."""

    def _owed(self) -> Usage:
        return Usage(self._prompt_tokens) if self.usage is None else self.usage


class RunMeter:
    """Counts a run of a graph from its events."""

    def __init__(self, prices: Mapping[str, Price] | None = None, before: RunMeter | None = None) -> None:
        """`before` has counted the run up to here, and somebody was charged for it already. It counts no
        more."""
        self._prices = prices or {}
        self._tally: Tally = Tally() if before is None else before._tally
        self._nodes: NodeTally = NodeTally() if before is None else before._nodes
        self._before = self._tally.usage
        self._split_before = self._nodes.split
        self._began = perf_counter()
        self.usage: Usage | None = None
        self.failed = False
        self.first_token_s: float | None = None

    @property
    def begun(self) -> bool:
        return self.owed > 0

    @property
    def owed(self) -> int:
        return max(0, self._owed().total_tokens)

    def shares(self, most: int | None = None) -> list[Share]:
        """One for each node and model, whatever item or pass."""
        if not self.owed:
            return []
        owed = at_most(self._owed(), most)
        split = fitted(since(self._nodes.split, self._split_before), owed)
        return [
            share_of(place.model, place.node, usage, self._prices.get(place.model, FREE))
            for place, usage in sorted(split.items())
        ]

    def count(self, events: Iterable[RunEvent]) -> None:
        for event in events:
            self._tally.add(event)
            self._nodes.add(event)
            if isinstance(event, RunFinished | RunFailed | RunSuspended):
                self.usage = event.usage
                self.failed = isinstance(event, RunFailed)
            elif self.first_token_s is None and isinstance(event, NodeDelta):
                self.first_token_s = perf_counter() - self._began

    def observe(self, batch: Batch) -> None:
        """The batches of a reply repeat the run's events, which are counted already."""

    def _owed(self) -> Usage:
        return self._tally.usage - self._before


def at_most(usage: Usage, most: int | None) -> Usage:
    """So many tokens of it, those of the prompt first."""
    if most is None or usage.total_tokens <= most:
        return usage
    prompt = min(usage.prompt_tokens, most)
    cached = min(usage.cached_tokens, prompt)
    return Usage(prompt, most - prompt, cached, usage.engine_ns)


def share_of(model: str, node: str, usage: Usage, price: Price) -> Share:
    """What a model did, and what it costs."""
    return Share(
        model=model,
        node=node,
        input_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        engine_ns=usage.engine_ns,
        nanodollars=nanodollars(price, usage),
        priced_by=price.by,
    )


class FreeMeter:
    """Of a call that counts as a request and has no tokens."""

    usage: Usage | None = Usage()
    begun = True
    owed = 0
    failed = False
    first_token_s: float | None = None

    def shares(self, most: int | None = None) -> list[Share]:  # noqa: ARG002 - the protocol's name
        return []

    def observe(self, batch: Batch) -> None:
        """Nothing comes in batches."""
