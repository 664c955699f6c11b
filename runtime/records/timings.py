"""What nodes took in earlier runs of a plan: what the compiler goes by when it orders the next.

    cgh:timings:PLAN_HASH      "search.each:n" 12, "search.each:s" 3.4

Sums over all runs of all tenants, by path of a node; items of a map and passes of a loop count each for
itself. Nothing but seconds is in there. The sums of a plan are forgotten when it has not run for a while.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from runtime.records.model import RunRecord
from runtime.store.client import Store, Word
from runtime.store.naming import check_name

KEEP_S = 30 * 24 * 3600

_INDEX = re.compile(r"\[[0-9]+\]")


class TimingStore:
    """Adds up what nodes took."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, records: Sequence[RunRecord]) -> None:
        """Adds what was run to its end in these runs. Raises `StoreUnavailable`."""
        runs: dict[tuple[str, str], list[float]] = {}
        for plan_hash, path, seconds in taken(records):
            runs.setdefault((_key(plan_hash), path), []).append(seconds)
        commands: list[tuple[Word, ...]] = []
        for (key, path), seconds_each in runs.items():
            commands.append(("HINCRBY", key, f"{path}:n", len(seconds_each)))
            commands.append(("HINCRBYFLOAT", key, f"{path}:s", f"{sum(seconds_each):.6f}"))
        commands += [("EXPIRE", key, KEEP_S) for key in {key for key, _ in runs}]
        if commands:
            await self._store.execute_many(commands)

    async def means(self, plan_hash: str) -> dict[str, float]:
        """Mean seconds by path, as `search.each`. Raises `StoreUnavailable`."""
        reply = await self._store.execute("HGETALL", _key(plan_hash))
        fields = {name.decode(): float(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}
        return {
            name.removesuffix(":s"): total / fields[f"{name.removesuffix(':s')}:n"]
            for name, total in fields.items()
            if name.endswith(":s")
        }


def taken(records: Iterable[RunRecord]) -> Iterator[tuple[str, str, float]]:
    """Plan, path and seconds of every node that succeeded by itself in runs that are over."""
    for record in records:
        if record.status != "running":
            for node in record.nodes:
                own = node.attempts == 1 and not node.fell_back_to and node.source == "node"
                if node.status == "succeeded" and own:
                    yield record.plan_hash, _INDEX.sub("", node.node), node.seconds


def _key(plan_hash: str) -> str:
    return f"cgh:timings:{check_name('plan hash', plan_hash)}"
