"""The journal of one run in the store, as the runner that holds its lease writes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from runtime.durability.bounds import Dropped, Shelf, Told
from runtime.durability.model import Checkpoint, Lease, RunState
from runtime.durability.packing import pack
from runtime.durability.parts import Write, batches, parts
from runtime.durability.patience import patiently
from runtime.durability.places import LEASES, Places, member
from runtime.durability.standing import refused, state_after
from runtime.events import RunEvent
from runtime.sealing import Seal
from runtime.store.client import Script, ScriptCall, Store, Word
from runtime.store.errors import StoreError

GRACE_S = 5.0
"""How long a write is tried though the deadline of the run is over: its last event comes after that."""

_APPEND = Script("clock", "journal", "journal_append")
_RELEASE = Script("clock", "journal", "journal_release")
PUT = Script("clock", "leases_put")
"""Notes when leases end."""


class Terms(NamedTuple):
    """How long leases and runs last."""

    lease_ms: int
    keep_ms: int
    clock: Callable[[], float] | None
    """Unix seconds in place of the store's clock. For tests."""

    @property
    def now(self) -> Word:
        return "" if self.clock is None else int(self.clock() * 1000)

    def of_run(self, run_id: str) -> list[Word]:
        """The arguments that all scripts of journals begin with."""
        return [self.now, run_id, self.lease_ms, self.keep_ms]


class StoredJournal:
    """A `runtime.durability.journal.Journal`."""

    def __init__(
        self, store: Store, keys: Places, seal: Seal, terms: Terms, lease: Lease, deadline: float
    ) -> None:
        self.lease = lease
        self.done: Mapping[str, Checkpoint] = {}
        self._store = store
        self._keys = keys
        self._seal = seal
        self._terms = terms
        self._deadline = deadline
        self._told = Told()
        self._shelf = Shelf()
        self._over = False

    @property
    def attempt(self) -> int:
        return self.lease.token

    @property
    def number(self) -> int:
        return self._told.number

    def go_on(self, told: Told, shelf: Shelf, done: Mapping[str, Checkpoint]) -> None:
        """From what earlier attempts have left."""
        self._told, self._shelf, self.done = told, shelf, done

    async def append(self, events: Sequence[RunEvent], checkpoints: Sequence[Checkpoint]) -> None:
        if not events and not checkpoints:
            return
        writes, dropped = self._prepared(events, checkpoints)
        state = state_after(events[-1]) if events else "running"
        *first, last = parts(writes)
        for part in first:
            await self._write(self._part(part))
        await self._write(self._last_part(last, state, dropped))
        self._over = state != "running"

    async def close(self) -> None:
        if self._over:
            return
        lease, keys = self.lease, self._keys
        hint = [self._terms.now, 0, member(lease.tenant, lease.run_id)]
        release = [*self._terms.of_run(lease.run_id), lease.token]
        with suppress(StoreError):
            await self._store.run_many([ScriptCall(_RELEASE, keys, release), ScriptCall(PUT, [LEASES], hint)])

    def _prepared(
        self, events: Sequence[RunEvent], checkpoints: Sequence[Checkpoint]
    ) -> tuple[list[Write], Dropped]:
        """What is to be written, large values before the checkpoints that refer to them."""
        keys, seal = self._keys, self._seal
        entries = [pack(each, seal.digest) for each in checkpoints]
        values = {digest: value for entry in entries for digest, value in entry.values.items()}
        new = {digest: value for digest, value in values.items() if not self._shelf.holds_value(digest)}
        dropped = self._shelf.add(entries)
        told = self._told.add(events)
        writes: list[Write] = [
            ("v", name, seal.close(value, keys.values, name)) for name, value in new.items()
        ]
        for checkpoint, packed, _ in entries:
            writes.append(("c", checkpoint.path, seal.close(packed, keys.done, checkpoint.path)))
        for number, batch in batches(told):
            writes.append(("e", number, seal.close(batch, keys.events, str(number))))
        return writes, dropped

    def _part(self, writes: Sequence[Write]) -> list[Word]:
        """The arguments for one that others follow."""
        return [self.lease.token, "", "running", 0, 0, 0, 0, *_flat(writes)]

    def _last_part(self, writes: Sequence[Write], state: RunState, dropped: Dropped) -> list[Word]:
        told = self._told
        counts = [told.number, state, told.kept, told.size, len(dropped.paths), len(dropped.values)]
        return [self.lease.token, *counts, *dropped.paths, *dropped.values, *_flat(writes)]

    async def _write(self, arguments: Sequence[Word]) -> None:
        run_id = self.lease.run_id

        async def write() -> bytes:
            word: bytes = await self._store.run(
                _APPEND, self._keys, [*self._terms.of_run(run_id), *arguments]
            )
            return word

        word = await patiently(write, max(self._deadline, time.time() + GRACE_S))
        if word == b"lost":
            raise refused(run_id, "lost")
        if word == b"unknown":
            raise refused(run_id, "unknown")


def _flat(writes: Sequence[Write]) -> list[Word]:
    return [word for write in writes for word in write]
