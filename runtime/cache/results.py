"""Results of nodes: those used last in this process, and all of them in the store.

    get ─► recent? ─► yes: at once
              └─► no ─► store, one round trip ─► keep it among the recent
    put ─► recent, and the store in the background

Nobody fails or waits long for a cache: a store that is out is a miss, and is not asked again for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, NamedTuple

import msgspec

from runtime.cache import values
from runtime.cache.memory import Recent
from runtime.cache.stored import MAX_RESULT_BYTES, StoredResults
from runtime.sealing import SealBroken
from runtime.store.errors import StoreError

logger = logging.getLogger(__name__)

STORE_REST_S = 1.0
"""How long the store is left alone after it was out."""
MAX_WRITES = 256
"""Results on their way to the store. One more is kept in this process only."""


class Result(NamedTuple):
    """What a node gave."""

    outputs: dict[str, Any]
    made: float
    """Unix seconds."""
    tokens: int
    """What it cost."""


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    made: float
    tokens: int
    outputs: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


class Results:
    """Of all tenants, for one event loop. Without a store they are this process's own."""

    def __init__(self, stored: StoredResults | None = None, recent: Recent | None = None) -> None:
        self._stored = stored
        self._recent = Recent() if recent is None else recent
        self._writing: set[asyncio.Task[None]] = set()
        self._rests_until = 0.0

    async def get(self, tenant: str, digest: str, oldest: float) -> Result | None:
        """What was made at `oldest` (Unix seconds) or later. Never raises."""
        packed = self._recent.get((tenant, digest))
        found = None if packed is None else _opened(packed)
        if found is not None and found.made >= oldest:
            return found
        packed = await self._from_store(tenant, digest)
        found = None if packed is None else _opened(packed)
        if packed is None or found is None or found.made < oldest:
            return None
        self._recent.put((tenant, digest), packed)
        return found

    def put(self, tenant: str, digest: str, result: Result, keep_s: float) -> None:
        """Keeps a result for so many seconds, unless it is too large or no value."""
        try:
            outputs = values.pack(result.outputs)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return
        if len(outputs) > MAX_RESULT_BYTES:
            return
        packed = _encode(_Packed(result.made, result.tokens, outputs))
        self._recent.put((tenant, digest), packed)
        if self._may_ask(tenant) and len(self._writing) < MAX_WRITES:
            task = asyncio.get_running_loop().create_task(self._write(tenant, digest, packed, keep_s))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def flush(self) -> None:
        """Waits until what was put has arrived in the store, or could not."""
        while self._writing:
            await asyncio.wait(self._writing)

    def _may_ask(self, tenant: str) -> bool:
        """Runs without a tenant are those of a library, and stay in its process."""
        return self._stored is not None and tenant != "" and time.monotonic() >= self._rests_until

    async def _from_store(self, tenant: str, digest: str) -> bytes | None:
        if self._stored is None or not self._may_ask(tenant):
            return None
        try:
            return await self._stored.get(tenant, digest)
        except StoreError as error:
            self._rest(error)
        except SealBroken as error:
            logger.warning("a kept result of %s cannot be opened: %s", tenant, error)
        return None

    async def _write(self, tenant: str, digest: str, packed: bytes, keep_s: float) -> None:
        assert self._stored is not None
        try:
            await self._stored.put(tenant, digest, packed, keep_s)
        except StoreError as error:
            self._rest(error)

    def _rest(self, error: StoreError) -> None:
        if time.monotonic() >= self._rests_until:
            logger.warning("the results cache does without the store for a while: %s", error)
        self._rests_until = time.monotonic() + STORE_REST_S


def _opened(packed: bytes) -> Result | None:
    """None for what cannot be read, as of another version of this program."""
    try:
        inside = _decode(packed)
        outputs = values.unpack(inside.outputs)
    except msgspec.MsgspecError:
        return None
    return Result(outputs, inside.made, inside.tokens) if isinstance(outputs, dict) else None
