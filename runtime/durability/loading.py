"""Reads what is kept of a run."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from runtime.durability.bounds import Entry
from runtime.durability.model import Checkpoint, Numbered
from runtime.durability.packing import references, unpack
from runtime.durability.parts import unpack_batch
from runtime.durability.places import Places
from runtime.errors import UnknownRun
from runtime.plan import ExecutionPlan, decode_plan
from runtime.request import RunRequest, decode_request
from runtime.sealing import Seal, SealBroken
from runtime.store.client import Store

PAGE = 32
"""Checkpoints of one round trip, about."""


class Stored:
    """What is kept of a run, as one tenant may read it."""

    def __init__(self, store: Store, keys: Places, seal: Seal, run_id: str) -> None:
        self._store = store
        self._keys = keys
        self._seal = seal
        self._run_id = run_id

    def request(self, packed: bytes, deadline: bytes | None) -> RunRequest:
        """With the deadline of its newest attempt. Raises `UnknownRun`."""
        try:
            request = decode_request(self._seal.open(packed, self._keys.run, "request"))
        except (SealBroken, msgspec.DecodeError) as error:
            raise self._unreadable(error) from error
        return request if deadline is None else msgspec.structs.replace(request, deadline=float(deadline))

    async def plan(self) -> ExecutionPlan:
        """Raises `UnknownRun`, `StoreError`."""
        packed = await self._store.execute("GET", self._keys.plan)
        if packed is None:
            raise UnknownRun(f"the plan of the run {self._run_id} is not kept any more")
        try:
            return decode_plan(self._seal.open(packed, self._keys.plan))
        except (SealBroken, msgspec.DecodeError) as error:
            raise self._unreadable(error) from error

    async def entries(self) -> list[Entry]:
        """Its checkpoints, but for those of which a large value is gone.

        Raises `UnknownRun`, `StoreError`.
        """
        try:
            packed = await self._packed()
            digests = {digest for each in packed for digest in references(each)}
            values = {digest: value for digest in digests if (value := await self._value(digest)) is not None}
            found = [(unpack(each, values), each) for each in packed]
        except (SealBroken, msgspec.DecodeError) as error:
            raise self._unreadable(error) from error
        return [_entry(checkpoint, each, values) for checkpoint, each in found if checkpoint is not None]

    def events(self, last: int, packed: bytes) -> list[Numbered]:
        """Of an entry of the stream, by its last number. Raises `UnknownRun`."""
        try:
            batch = unpack_batch(self._seal.open(packed, self._keys.events, str(last)))
        except (SealBroken, msgspec.DecodeError) as error:
            raise self._unreadable(error) from error
        return [Numbered(number, event) for number, event in batch]

    async def _packed(self) -> list[bytes]:
        key = self._keys.done
        packed: dict[str, bytes] = {}
        cursor = b"0"
        while True:
            cursor, found = await self._store.execute("HSCAN", key, cursor, "COUNT", PAGE)
            for path, value in zip(found[::2], found[1::2], strict=True):
                packed[path.decode()] = self._seal.open(value, key, path.decode())
            if cursor == b"0":
                return list(packed.values())

    async def _value(self, digest: str) -> bytes | None:
        value = await self._store.execute("HGET", self._keys.values, digest)
        return None if value is None else self._seal.open(value, self._keys.values, digest)

    def _unreadable(self, error: Exception) -> UnknownRun:
        return UnknownRun(f"what is kept of the run {self._run_id} cannot be read: {error}")


def by_path(entries: Sequence[Entry]) -> dict[str, Checkpoint]:
    return {entry.checkpoint.path: entry.checkpoint for entry in entries}


def _entry(checkpoint: Checkpoint, packed: bytes, values: dict[str, bytes]) -> Entry:
    return Entry(checkpoint, packed, {digest: values[digest] for digest in references(packed)})
