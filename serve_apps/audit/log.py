"""The audit logs in the store: one of each organisation, and one of the platform.

    cgh:{acme}:audit:log       stream, SEQUENCE-0: entry, mac
    cgh:{acme}:audit:head      hash: sequence, mac, seal of the last entry
    cgh:{acme}:audit:floor     hash: the same of the last entry that was let go
    cgh:{-}:audit:log          what belongs to no organisation

A log for each, not one for all: an owner can read the own one whole, and so verify it, and sees nothing of
others. Entries are added by compare-and-set on the head, so gateways race and none is lost or written twice.

An entry is written *before* the change that it tells of. Nothing changes that could not be written down; a
gateway that dies in between leaves an entry without a change, never a change without an entry. A change that
then fails, or of which nobody knows whether it happened, has a second entry that says so.

A log keeps its newest `keep` entries. Older ones are let go in small numbers, once they were looked at: they
were as they had been written, which the seal of the floor says for ever. Where they were not, none is let go.

A log that is broken takes nothing more, or the next entry would seal what is left of it as whole. It stays so
until somebody puts it aside (`restart`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final

import msgspec
import structlog

from runtime.store.client import Script, Store
from runtime.store.errors import StoreError
from runtime.store.naming import tenant_key
from serve_apps.audit.chain import ChainCheck, ChainKey
from serve_apps.audit.model import (
    PLATFORM,
    Anchor,
    AuditBroken,
    AuditError,
    Deed,
    Entry,
    Head,
    Kept,
    Outcome,
    Verdict,
)

REFUSED_AGAIN_S: Final = 60
"""Refusals of one caller at one action within this time are one entry: nobody fills the log by asking."""
KEPT_ENTRIES: Final = 100_000
"""Of each log; about 50 MB."""
LET_GO_EVERY: Final = 250
"""Entries from one look at what may go to the next."""
_PAGE: Final = 500
_APPEND = Script("audit_append")
_LET_GO = Script("audit_let_go")
_SET_ASIDE = Script("audit_set_aside")

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Entry).decode
_log = structlog.get_logger(__name__)


class AuditLog:
    """Writes and reads the logs. `secret` is that of the gateways; `clock` gives Unix seconds."""

    def __init__(
        self,
        store: Store,
        secret: bytes,
        *,
        keep: int = KEPT_ENTRIES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._keep = keep
        self._clock = clock
        self._key = lru_cache(maxsize=1024)(lambda tenant: ChainKey(secret, tenant))

    def digest(self, tenant: str, value: Any) -> str:
        """Of an object of a tenant, to tell one state of it from another."""
        return self._key(tenant).digest(value)

    @asynccontextmanager
    async def changing(self, deed: Deed) -> AsyncIterator[Entry]:
        """Around a change: written down before it, and once more where the block raises.

        Raises `AuditBroken`, `StoreUnavailable` before the block begins.
        """
        entry = await self.write(deed)
        try:
            yield entry
        except BaseException:
            await self._as_far_as_possible(deed, "failed", entry.sequence)
            raise

    async def refused(self, deed: Deed) -> None:
        """That somebody wanted what it may not. Never raises: whoever is refused stays refused."""
        key = f"{_log_key(deed.tenant)}:refused:{deed.actor}:{deed.action}"
        try:
            if not await self._store.execute("SET", key, 1, "NX", "EX", REFUSED_AGAIN_S):
                return
        except StoreError as error:
            _log.warning("refusal_not_audited", tenant=deed.tenant, error=type(error).__name__)
            return
        await self._as_far_as_possible(deed, "refused", None)

    async def write(self, deed: Deed, outcome: Outcome = "allowed", of: int | None = None) -> Entry:
        """Adds an entry. Raises `AuditBroken`, `StoreUnavailable`: it may then be written all the same."""
        tenant = deed.tenant
        key, places = self._key(tenant), [_log_key(tenant), _head_key(tenant)]
        head = await self._head(tenant)
        while True:  # whenever it goes round again, somebody else's entry was written
            if head is not None and not key.sealed(head):
                raise _broken(tenant)
            sequence = head.sequence + 1 if head is not None else 1
            told = msgspec.structs.asdict(deed)
            entry = Entry(**told, sequence=sequence, at=self._clock(), outcome=outcome, of=of)
            packed = _pack(entry)
            mac = key.link(head.mac if head is not None else key.start, sequence, packed)
            bound = head.mac if head is not None else b""
            reply = await self._store.run(
                _APPEND, places, [bound, sequence, packed, mac, key.seal(sequence, mac)]
            )
            if reply[0] == 1:
                _log.info("audited", tenant=tenant, action=deed.action, sequence=sequence, mac=mac.hex())
                if sequence % LET_GO_EVERY == 0 and sequence > self._keep:
                    await self._let_go(tenant, sequence - self._keep)
                return entry
            if reply[0] < 0:
                raise _broken(tenant)
            head = _as_head(*reply[1:])

    async def newest(self, tenant: str, limit: int, before: int | None = None) -> list[Entry]:
        """At most `limit` entries, the newest first, of those before number `before`. What was broken is left
        out: `verify` tells of it. Raises `InvalidName`, `StoreUnavailable`."""
        end = "+" if before is None else f"{max(before, 1) - 1}-0"
        found = await self._store.execute("XREVRANGE", _log_key(tenant), end, "-", "COUNT", limit)
        entries = []
        for each in found:
            kept = _as_kept(each)
            try:
                entries.append(_unpack(kept.packed))
            except msgspec.MsgspecError:
                _log.warning("audit_entry_unreadable", tenant=tenant, place=kept.place.decode())
        return entries

    async def verify(self, tenant: str, anchors: Sequence[Anchor] = ()) -> Verdict:
        """Looks at every entry. `anchors` are what `head` said of this log before.

        Raises `InvalidName`, `StoreUnavailable`.
        """
        ours = [each for each in anchors if each.tenant == tenant]
        floor = await self._floor(tenant)
        while True:
            verdict = await self._look(tenant, ChainCheck(self._key(tenant), ours, floor), floor)
            begins = await self._floor(tenant)
            if verdict.sound or begins == floor:
                return verdict
            floor = begins  # entries were let go meanwhile

    async def _look(self, tenant: str, looking: ChainCheck, floor: Head | None) -> Verdict:
        last = b"%d-0" % (0 if floor is None else floor.sequence)
        while True:
            # The head is read before the page: where none follows, it is the head of just what was read.
            head = await self._head(tenant)
            page = [_as_kept(each) for each in await self._page(tenant, last)]
            if not page:
                return looking.end(head)
            looking.feed(page)
            last = page[-1].place

    async def head(self, tenant: str) -> Anchor | None:
        """How far the log has come, to be kept elsewhere. None of an empty log.

        Raises `AuditBroken`, `InvalidName`, `StoreUnavailable`.
        """
        head = await self._head(tenant)
        if head is None:
            return None
        if not self._key(tenant).sealed(head):
            raise _broken(tenant)
        return Anchor(tenant, head.sequence, head.mac.hex())

    async def restart(self, deed: Deed) -> Entry:
        """Puts the log of the deed's tenant aside, as `…:set-aside:TIME`, and begins another with the deed.

        Raises `StoreUnavailable`.
        """
        places = [_log_key(deed.tenant), _head_key(deed.tenant), _floor_key(deed.tenant)]
        aside = [f"{place}:set-aside:{int(self._clock() * 1000)}" for place in places]
        await self._store.run(_SET_ASIDE, [*places, *aside], [])
        return await self.write(deed)

    async def _let_go(self, tenant: str, last: int) -> None:
        """Forgets entries up to number `last`, at most so many as are looked at in one go. Never raises: what
        stays now goes another time."""
        try:
            await self._let_go_sound(tenant, last)
        except StoreError as error:
            _log.warning("audit_log_keeps_all", tenant=tenant, why=type(error).__name__)

    async def _let_go_sound(self, tenant: str, last: int) -> None:
        floor = await self._floor(tenant)
        begins = 0 if floor is None else floor.sequence
        looking = ChainCheck(self._key(tenant), floor=floor)
        page = [_as_kept(each) for each in await self._page(tenant, b"%d-0" % begins)]
        looking.feed(page[: max(0, last - begins)])
        if not looking.sound:
            _log.warning("audit_log_keeps_all", tenant=tenant, why="an entry is not as it was written")
        elif looking.entries > begins:
            seal = self._key(tenant).floor_seal(looking.entries, looking.mac)
            places = [_log_key(tenant), _floor_key(tenant)]
            await self._store.run(_LET_GO, places, [str(begins or ""), looking.entries, looking.mac, seal])

    async def _as_far_as_possible(self, deed: Deed, outcome: Outcome, of: int | None) -> None:
        try:
            await self.write(deed, outcome, of)
        except (AuditError, StoreError) as error:
            _log.warning("not_audited", tenant=deed.tenant, outcome=outcome, error=type(error).__name__)

    async def _head(self, tenant: str) -> Head | None:
        return _as_head(*await self._store.execute("HMGET", _head_key(tenant), "sequence", "mac", "seal"))

    async def _floor(self, tenant: str) -> Head | None:
        return _as_head(*await self._store.execute("HMGET", _floor_key(tenant), "sequence", "mac", "seal"))

    async def _page(self, tenant: str, after: bytes) -> list[Any]:
        found = await self._store.execute("XRANGE", _log_key(tenant), b"(" + after, "+", "COUNT", _PAGE)
        return list(found)


def _broken(tenant: str) -> AuditBroken:
    return AuditBroken(f"the audit log of {tenant} is not as it was left: verify it")


def _as_head(sequence: bytes | None, mac: bytes | None, seal: bytes | None) -> Head | None:
    """None where there is none; one that fits nothing where it is no head."""
    if not (sequence or mac or seal):
        return None
    number = int(sequence) if sequence and sequence.isdigit() and len(sequence) <= 15 else 0
    return Head(number, mac or b"", seal or b"")


def _as_kept(found: Any) -> Kept:
    place, pairs = found
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return Kept(place, fields.get(b"entry", b""), fields.get(b"mac", b""))


def _log_key(tenant: str) -> str:
    return _key(tenant, "log")


def _head_key(tenant: str) -> str:
    return _key(tenant, "head")


def _floor_key(tenant: str) -> str:
    return _key(tenant, "floor")


def _key(tenant: str, part: str) -> str:
    if tenant == PLATFORM:
        return f"cgh:{{{PLATFORM}}}:audit:{part}"
    return tenant_key(tenant, "audit", part)
