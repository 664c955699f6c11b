"""Contexts in the store: a hash (version, details) and an append-only list of turns, both under the tenant.

An append sends only the new turns, so a long conversation costs what its last turn costs; every change is
one script. A context is bounded: an append that would exceed the bounds drops the *oldest* turns until it
fits, since a conversation must be able to go on. (Which turns a model then reads is the window policy's
choice, not the store's.) Instructions and profile are not turns and are never dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cluster.messages import Message
from runtime.context.errors import ContextConflict, ContextTooLarge
from runtime.context.model import Context, Details
from runtime.store.client import Reply, Script, Store, Word
from runtime.store.naming import check_name, tenant_key

DEFAULT_TTL_S = 7 * 24 * 3600.0
MAX_TURNS = 1_000
MAX_BYTES = 1024 * 1024
"""Of packed turns and details together."""

_LOAD = Script("context_load")
_WRITE = Script("context_write")

_pack = msgspec.msgpack.Encoder().encode
_unpack_message = msgspec.msgpack.Decoder(Message).decode
_unpack_details = msgspec.msgpack.Decoder(Details).decode


class ContextStore:
    """Loads and changes contexts. One is forgotten `ttl_s` seconds after its last change."""

    def __init__(
        self,
        store: Store,
        *,
        ttl_s: float = DEFAULT_TTL_S,
        max_turns: int = MAX_TURNS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._store = store
        self._ttl_ms = int(ttl_s * 1000)
        self._max_turns = max_turns
        self._max_bytes = max_bytes

    async def load(self, tenant: str, context_id: str) -> Context:
        """The context, all of one version; an empty one of version 0 if there is none.

        Raises `InvalidName`, `StoreUnavailable`.
        """
        version, packed, turns = await self._store.run(_LOAD, _keys(tenant, context_id), [])
        details = _unpack_details(packed) if packed else Details()
        history = [_unpack_message(turn) for turn in turns]
        return Context(
            context_id=context_id,
            version=int(version or 0),
            session_history=_without_orphans(history),
            **msgspec.structs.asdict(details),
        )

    async def append(
        self,
        tenant: str,
        context_id: str,
        turns: Sequence[Message],
        expected_version: int | None = None,
    ) -> int:
        """Adds turns, together and in order, and returns the new version; creates the context if need be.

        With `expected_version` only if the context still has it (0: only if there is none), else raises
        `ContextConflict`. Without, concurrent appends follow one another and none is lost.
        Raises `ContextTooLarge`, `InvalidName`, and `StoreUnavailable`, after which the turns may or may
        not have been added: repeat with the version that was loaded, never without.
        """
        args: list[Word] = ["append", "", *map(_pack, turns)]
        return await self._write(tenant, context_id, expected_version, args)

    async def replace(self, tenant: str, context: Context, expected_version: int) -> int:
        """Writes the whole document and returns the new version. `context.version` is not read.

        Only if the stored one has `expected_version` (0: only if there is none), else raises
        `ContextConflict`. Raises `ContextTooLarge`, `InvalidName`, `StoreUnavailable`.
        """
        args: list[Word] = ["replace", _pack(context.details()), *map(_pack, context.session_history)]
        return await self._write(tenant, context.context_id, expected_version, args)

    async def delete(self, tenant: str, context_id: str) -> bool:
        """Whether there was one. Raises `InvalidName`, `StoreUnavailable`."""
        return bool(await self._store.execute("DEL", *_keys(tenant, context_id)))

    async def _write(
        self, tenant: str, context_id: str, expected_version: int | None, args: list[Word]
    ) -> int:
        expected: Word = "" if expected_version is None else expected_version
        bounds: list[Word] = [self._ttl_ms, self._max_turns, self._max_bytes]
        reply: Reply = await self._store.run(_WRITE, _keys(tenant, context_id), [expected, *bounds, *args])
        outcome, version = reply
        if outcome == b"conflict":
            raise ContextConflict(version)
        if outcome == b"too large":
            raise ContextTooLarge(self._max_bytes, self._max_turns)
        return int(version)


def _keys(tenant: str, context_id: str) -> list[str]:
    check_name("contextId", context_id)
    return [tenant_key(tenant, "context", context_id, part) for part in ("document", "turns")]


def _without_orphans(history: list[Message]) -> list[Message]:
    """Tool results at the start answer calls that were dropped: no chat template takes them."""
    start = next((i for i, turn in enumerate(history) if turn.role != "tool"), len(history))
    return history[start:]
