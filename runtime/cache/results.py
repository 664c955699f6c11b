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
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeVar

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


T = TypeVar("T")


class Result(NamedTuple):
    """What a node gave."""

    outputs: dict[str, Any]
    made: float
    """Unix seconds."""
    tokens: int
    """What it cost."""


class Look(NamedTuple):
    """What there is for a question."""

    result: Result | None
    held: str
    """The word by which somebody makes one, as it is our own; `""` where nobody does, or nobody can tell."""


NOBODY = Look(None, "")


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
        self._writing: set[asyncio.Task[Any]] = set()
        self._rests_until = 0.0

    def recent(self, tenant: str, digest: str, oldest: float) -> Result | None:
        """What this process has that was made at `oldest` (Unix seconds) or later. Never raises."""
        return _fresh(self._recent.get((tenant, digest)), oldest)

    async def get(self, tenant: str, digest: str, oldest: float) -> Result | None:
        """What was made at `oldest` (Unix seconds) or later. Never raises."""
        found = self.recent(tenant, digest, oldest)
        if found is not None or self._stored is None or not self._may_ask(tenant):
            return found
        packed = await self._asked(tenant, self._stored.get(tenant, digest))
        return self._found(tenant, digest, packed, oldest)

    async def look(self, tenant: str, digest: str, oldest: float, word: str, lease_s: float) -> Look:
        """What the store has that was made at `oldest` or later, or by which word somebody makes it.

        Where nobody does, `word` has claimed it from now on for so long. One round trip; two where what is
        kept is too old. Never raises.
        """
        for anyway in (False, True):
            if self._stored is None or not self._may_ask(tenant):
                return NOBODY
            asking = self._stored.look(tenant, digest, word, lease_s, anyway=anyway)
            looked = await self._asked(tenant, asking)
            if looked is None:
                return NOBODY
            found = self._found(tenant, digest, looked.packed, oldest)
            if found is not None or looked.held:
                return Look(found, looked.held)
        return NOBODY

    async def renew(self, tenant: str, digest: str, word: str, lease_s: float) -> bool:
        """Holds on to a claim; whether it may still be that of `word`. Never raises."""
        if self._stored is None or not self._may_ask(tenant):
            return True
        return await self._asked(tenant, self._stored.swap(tenant, digest, word, word, lease_s)) is not False

    def leave(self, tenant: str, digest: str, word: str, becomes: str, lease_s: float) -> None:
        """Ends a claim without a result: has it become something else for so long, or nothing at once."""
        if self._stored is not None:
            self._write(tenant, partial(self._stored.swap, tenant, digest, word, becomes, lease_s))

    def put(self, tenant: str, digest: str, result: Result, keep_s: float, word: str = "") -> bool:
        """Keeps a result for so many seconds, unless it is too large or no value; the claim of `word` ends.

        Whether it is on its way to the store.
        """
        try:
            outputs = values.pack(result.outputs)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return False
        if len(outputs) > MAX_RESULT_BYTES:
            return False
        packed = _encode(_Packed(result.made, result.tokens, outputs))
        self._recent.put((tenant, digest), packed)
        if self._stored is None:
            return False
        return self._write(tenant, partial(self._stored.put, tenant, digest, packed, keep_s, word))

    async def flush(self) -> None:
        """Waits until what was put has arrived in the store, or could not."""
        while self._writing:
            await asyncio.wait(self._writing)

    def _may_ask(self, tenant: str) -> bool:
        """Runs without a tenant are those of a library, and stay in its process."""
        return self._stored is not None and tenant != "" and time.monotonic() >= self._rests_until

    def _found(self, tenant: str, digest: str, packed: bytes | None, oldest: float) -> Result | None:
        """What the store had, if it is not too old: among the recent from now on."""
        found = _fresh(packed, oldest)
        if packed is not None and found is not None:
            self._recent.put((tenant, digest), packed)
        return found

    async def _asked(self, tenant: str, asking: Coroutine[Any, Any, T]) -> T | None:
        """What the store says; None where it says nothing that can be used."""
        try:
            return await asking
        except StoreError as error:
            self._rest(error)
        except SealBroken as error:
            logger.warning("a kept result of %s cannot be opened: %s", tenant, error)
        return None

    def _write(self, tenant: str, write: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """In the background. Whether it is on its way."""
        if not self._may_ask(tenant) or len(self._writing) >= MAX_WRITES:
            return False
        task = asyncio.get_running_loop().create_task(self._asked(tenant, write()))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return True

    def _rest(self, error: StoreError) -> None:
        if time.monotonic() >= self._rests_until:
            logger.warning("the results cache does without the store for a while: %s", error)
        self._rests_until = time.monotonic() + STORE_REST_S


def _fresh(packed: bytes | None, oldest: float) -> Result | None:
    found = None if packed is None else _opened(packed)
    return found if found is not None and found.made >= oldest else None


def _opened(packed: bytes) -> Result | None:
    """None for what cannot be read, as of another version of this program."""
    try:
        inside = _decode(packed)
        outputs = values.unpack(inside.outputs)
    except msgspec.MsgspecError:
        return None
    return Result(outputs, inside.made, inside.tokens) if isinstance(outputs, dict) else None
