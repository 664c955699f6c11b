"""API keys: who is asking.

    create ──► authenticate ... ──► rotate (a new secret; the old one goes on for a while) ──► revoke

    cgh:apikey:<key id>     hash: record, digest, revoked, old_digest, old_until, used
    cgh:{acme}:apikeys      sorted set by age: the keys of the organisation acme, for lists
    cgh:admins              sorted set by age: keys that were once made or changed to be of an admin

What the store says of a key, or that there is none, is kept for `cache_ttl_s` and read again in time
(`refreshing.py`): a change is seen by every gateway within that time, and a key in steady use waits for
nothing.

    KeyRejected
    ├── InvalidKey    malformed, unknown, or the wrong secret: deliberately the same to the caller
    ├── ExpiredKey    the right secret of a key past its end
    └── RevokedKey    the right secret of a revoked key
    NoSuchKey         nothing to change
    InvalidEndpoint   a path that can be none
    AdminExists       there is somebody already who can make keys
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from runtime.store.client import Script, ScriptCall, Store
from runtime.store.errors import StoreError
from runtime.store.naming import check_name, tenant_key
from serve_apps.gateway.callers import DEFAULT_TEAM, Caller, Role
from serve_apps.gateway.directory import UNBOUND, Standing
from serve_apps.gateway.key_tokens import KeyTokens
from serve_apps.gateway.limits import UNLIMITED, Allowance
from serve_apps.gateway.refreshing import Refreshing
from serve_apps.gateway.rights import wrong_endpoint

CACHE_TTL_S: Final = 1.5
"""How long after a change a gateway may still go by what was before."""
CACHE_SIZE: Final = 10_000
"""Keys, and absences of keys, known to a gateway."""
FORGET_AFTER_S: Final = 90 * 24 * 3600
"""A revoked or expired key stays listed this long, then leaves the store."""
USED_EVERY_S: Final = 60
"""How exact `last_used` is."""
MAX_OVERLAP_S: Final = 30 * 24 * 3600
"""Longest that an old secret may go on."""
MAX_ENDPOINTS: Final = 100

_FLUSH_S: Final = 1.0
_CREATION_S: Final = 60.0
"""An index entry this young may belong to a key that is being written."""
_PAGE: Final = 500
_ADMINS: Final = "cgh:admins"
_BOOTSTRAP: Final = "cgh:bootstrap"
_BOOTSTRAP_MS: Final = 30_000
_FIELDS: Final = ("record", "digest", "revoked", "old_digest", "old_until", "used")
_REVOKE = Script("key_revoke")
_CHANGE = Script("key_change")
_ROTATE = Script("key_rotate")
_USED = Script("key_used")

_log = structlog.get_logger(__name__)


class KeyRejected(Exception):
    """The caller showed no key that counts. Never holds the token or a part of its secret."""


class InvalidKey(KeyRejected):
    def __init__(self, message: str = "unknown API key") -> None:
        super().__init__(message)


class ExpiredKey(KeyRejected):
    def __init__(self, message: str = "this API key has expired") -> None:
        super().__init__(message)


class RevokedKey(KeyRejected):
    def __init__(self, message: str = "this API key was revoked") -> None:
        super().__init__(message)


class NoSuchKey(Exception):
    """There is no such key, or it is revoked and what was asked needs one that is not."""


class InvalidEndpoint(ValueError):
    """What is to be an endpoint of a key is no pattern of paths."""


class AdminExists(Exception):
    """A key of an admin exists, which can make all others."""


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a key, its secret excepted."""

    key_id: str
    tenant: str
    name: str
    created: float
    """Unix seconds."""
    expires: float | None = None
    """Unix seconds."""
    revoked: bool = False
    team: str = DEFAULT_TEAM
    role: Role = "service"
    allowance: Allowance = UNLIMITED
    models: list[str] | None = None
    endpoints: list[str] | None = None
    functions: bool = False
    """These three as in `Caller`."""
    created_by: str | None = None
    """The id of the caller who made it; None where it was made in the store itself."""
    last_used: float | None = None
    """Unix seconds, to a minute or so."""
    old_secret_until: float | None = None
    """Unix seconds until which the secret before the last rotation goes on."""

    def caller(self, standing: Standing = UNBOUND) -> Caller:
        """Whoever shows this key, given what its organisation and team allow."""
        return Caller(
            self.tenant,
            self.key_id,
            team=self.team,
            role=self.role,
            models=self.models,
            endpoints=self.endpoints,
            functions=self.functions,
            organisation_allowance=standing.organisation,
            team_allowance=standing.team,
            allowance=self.allowance,
            expires=self.expires,
        )


_decode_record = msgspec.msgpack.Decoder(KeyRecord).decode
_Reply = list[bytes | None]


class _Known:
    """What the store said of a key."""

    __slots__ = ("digest", "note_at", "old_digest", "record", "reply")

    def __init__(self, reply: _Reply) -> None:
        record, digest, revoked, self.old_digest, old_until, used = self.reply = reply
        self.digest = digest or b""
        self.record = None
        self.note_at = float(used or 0) + USED_EVERY_S
        """From when on a use is noted in the store."""
        if record is not None and digest is not None:
            self.record = msgspec.structs.replace(
                _decode_record(record),
                revoked=revoked is not None,
                last_used=float(used) if used is not None else None,
                old_secret_until=float(old_until) if old_until is not None else None,
            )


class KeyStore:
    """Issues, checks, changes and revokes keys.

    `pepper` is 32 bytes that never reach the store. `grace_s` is how long beyond `cache_ttl_s` a key counts
    while the store is out. `clock` gives Unix seconds and decides on expiry; `monotonic` ages what is kept.
    """

    def __init__(
        self,
        store: Store,
        pepper: bytes,
        *,
        cache_ttl_s: float = CACHE_TTL_S,
        grace_s: float = 0.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._tokens = KeyTokens(pepper)
        self._clock = clock
        self._known = Refreshing(
            self._read, ttl_s=cache_ttl_s, grace_s=grace_s, size=CACHE_SIZE, monotonic=monotonic
        )
        self._uses: dict[str, int] = {}

    async def authenticate(self, token: str) -> KeyRecord:
        """The record of the key that `token` is. Raises `KeyRejected`, `StoreUnavailable`."""
        parsed = self._tokens.parse(token)
        if parsed is None:
            raise InvalidKey
        key_id, secret = parsed
        known = await self._known.get(key_id)
        record, now = known.record, self._clock()
        if record is None or not _fits(known, self._tokens.digest(key_id, secret), record, now):
            raise InvalidKey
        if record.revoked:
            raise RevokedKey
        if record.expires is not None and now >= record.expires:
            raise ExpiredKey
        if now >= known.note_at:
            known.note_at = now + USED_EVERY_S
            self._uses[key_id] = int(now)
        return record

    async def create(
        self,
        tenant: str,
        name: str,
        *,
        team: str = DEFAULT_TEAM,
        role: Role = "service",
        allowance: Allowance = UNLIMITED,
        expires: float | None = None,
        models: list[str] | None = None,
        endpoints: list[str] | None = None,
        functions: bool = False,
        created_by: str | None = None,
    ) -> tuple[str, KeyRecord]:
        """A new key: its token, which is not kept and cannot be shown again, and its record.

        Raises `InvalidName` (tenant, team), `InvalidEndpoint`, `StoreUnavailable`.
        """
        record = KeyRecord(
            key_id=self.new_id(),
            tenant=tenant,
            name=name,
            created=self._clock(),
            expires=expires,
            team=team,
            role=role,
            allowance=allowance,
            models=models,
            endpoints=endpoints,
            functions=functions,
            created_by=created_by,
        )
        return await self.issue(record), record

    def new_id(self) -> str:
        """Of a key that is to be issued."""
        return self._tokens.new_id()

    async def issue(self, record: KeyRecord) -> str:
        """The token of a new key with this record, whose id is of `new_id`. Raises as `create`."""
        check_name("tenant", record.tenant)
        check_name("team", record.team)
        _checked(record.endpoints)
        token, digest = self._tokens.new_token(record.key_id)
        # The index first: an entry without a key is skipped, a key without an entry could not be found.
        await self._store.execute("ZADD", _index(record.tenant), str(record.created), record.key_id)
        await self._list_admin(record)
        key = _key(record.key_id)
        await self._store.execute("HSET", key, "record", msgspec.msgpack.encode(record), "digest", digest)
        if record.expires is not None:
            await self._store.execute("PEXPIREAT", key, _forgotten_at(record.expires))
        return token

    async def bootstrap(self, tenant: str, name: str, key_id: str | None = None) -> tuple[str, KeyRecord]:
        """The first key of an admin, as `create`; with an id of `new_id`, if one is given.

        Raises `AdminExists` where there is one that works.
        """
        if not await self._store.execute("SET", _BOOTSTRAP, "1", "NX", "PX", _BOOTSTRAP_MS):
            raise AdminExists("a key of an admin is being made at this moment")
        try:
            for known in await self._store.execute("ZRANGE", _ADMINS, 0, -1):
                record = await self.get(known.decode())
                if record is not None and record.role == "admin" and self._is_live(record):
                    raise AdminExists(
                        f"there is a key of an admin: {record.key_id} ({record.name!r}, of {record.tenant}). "
                        f"Make others with it; if it is lost, revoke it first"
                    )
            record = KeyRecord(key_id or self.new_id(), tenant, name, self._clock(), role="admin")
            return await self.issue(record), record
        finally:
            await self._store.execute("DEL", _BOOTSTRAP)

    async def get(self, key_id: str) -> KeyRecord | None:
        """The record as the store has it now. Raises `InvalidName`, `StoreUnavailable`."""
        return (await self._read(check_name("key id", key_id))).record

    async def change(
        self, key_id: str, change: Callable[[KeyRecord], KeyRecord]
    ) -> tuple[KeyRecord, KeyRecord]:
        """Applies a change to a key as it is: before and after. Every gateway goes by it within
        `cache_ttl_s`; this one at once.

        `change` may be called again where somebody else changes the key meanwhile. It cannot give the key to
        another organisation, nor undo a revocation. Raises `NoSuchKey`, `InvalidName`, `InvalidEndpoint`,
        `StoreUnavailable`, and what `change` raises.
        """
        while True:
            known = await self._read(check_name("key id", key_id))
            before, held = known.record, known.reply[0]
            if before is None or held is None:
                raise NoSuchKey(f"there is no key {key_id}")
            after = _kept(change(before), before)
            await self._list_admin(after)
            forgotten = "" if after.expires is None else _forgotten_at(after.expires)
            bare = msgspec.structs.replace(after, revoked=False, last_used=None, old_secret_until=None)
            args = [held, msgspec.msgpack.encode(bare), forgotten]
            if await self._store.run(_CHANGE, [_key(key_id)], args):
                self._known.forget(key_id)
                return before, after

    async def rotate(self, key_id: str, *, overlap_s: float = 0.0) -> tuple[str, KeyRecord]:
        """A new secret for the key: its token, which cannot be shown again, and its record.

        The secret so far goes on for `overlap_s`; the one before it ends now. Raises `NoSuchKey` also for a
        revoked key, `InvalidName`, `ValueError` (overlap), `StoreUnavailable`.
        """
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise ValueError(f"an old secret may go on for 0 to {MAX_OVERLAP_S} s")
        token, digest = self._tokens.new_token(check_name("key id", key_id))
        until = str(self._clock() + overlap_s)
        rotated = await self._store.run(_ROTATE, [_key(key_id)], [digest, until])
        self._known.forget(key_id)
        record = await self.get(key_id) if rotated else None
        if record is None:
            raise NoSuchKey(f"there is no key {key_id}, or it is revoked")
        return token, record

    async def revoke(self, key_id: str) -> bool:
        """Whether there was such a key. Every gateway refuses it within `cache_ttl_s`; this one at once.

        Raises `InvalidName`, `StoreUnavailable`.
        """
        key = _key(check_name("key id", key_id))
        found = await self._store.run(_REVOKE, [key], [FORGET_AFTER_S * 1000])
        self._known.forget(key_id)
        return bool(found)

    async def list(self, tenant: str, *, after: str | None = None) -> AsyncIterator[KeyRecord]:
        """The tenant's keys, oldest first, a page at a time; those behind the key `after`, if it is listed.

        Raises `InvalidName`, `StoreUnavailable`.
        """
        index, start = _index(tenant), 0
        if after is not None:
            rank = await self._store.execute("ZRANK", index, after)
            start = 0 if rank is None else rank + 1
        while page := await self._store.execute("ZRANGE", index, start, start + _PAGE - 1, "WITHSCORES"):
            gone = 0
            for key_id, created in zip(page[::2], page[1::2], strict=True):
                record = (await self._read(key_id.decode())).record
                if record is not None:
                    yield record
                elif float(created) < self._clock() - _CREATION_S:
                    gone += await self._store.execute("ZREM", index, key_id)
            start += _PAGE - gone

    async def note_uses(self) -> None:
        """Writes, until cancelled, when keys were last used: a second late, and once a minute and key."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            if self._uses:
                await self._flush_uses()

    async def _flush_uses(self) -> None:
        uses, self._uses = self._uses, {}
        calls = [ScriptCall(_USED, [_key(key_id)], [used, USED_EVERY_S]) for key_id, used in uses.items()]
        # Not worth repeating: whoever is used goes on being used. Whether the store is out is told elsewhere.
        with suppress(StoreError):
            await self._store.run_many(calls)

    async def _read(self, key_id: str, known: _Known | None = None) -> _Known:
        reply: _Reply = await self._store.execute("HMGET", _key(key_id), *_FIELDS)
        # Mostly nothing has changed: then nothing is decoded.
        return known if known is not None and known.reply == reply else _Known(reply)

    async def _list_admin(self, record: KeyRecord) -> None:
        if record.role == "admin":
            await self._store.execute("ZADD", _ADMINS, str(record.created), record.key_id)

    def _is_live(self, record: KeyRecord) -> bool:
        return not record.revoked and (record.expires is None or self._clock() < record.expires)


def _fits(known: _Known, digest: bytes, record: KeyRecord, now: float) -> bool:
    """Whether the digest is that of the key's secret, or of the one before it, which still goes on."""
    if hmac.compare_digest(known.digest, digest):
        return True
    if known.old_digest is None or record.old_secret_until is None:
        return False
    return hmac.compare_digest(known.old_digest, digest) and now < record.old_secret_until


def _kept(after: KeyRecord, before: KeyRecord) -> KeyRecord:
    """The changed record, with what no change may touch as it was."""
    check_name("team", after.team)
    _checked(after.endpoints)
    return msgspec.structs.replace(
        after,
        key_id=before.key_id,
        tenant=before.tenant,
        created=before.created,
        created_by=before.created_by,
        revoked=before.revoked,
        last_used=before.last_used,
        old_secret_until=before.old_secret_until,
    )


def _checked(endpoints: Sequence[str] | None) -> list[str] | None:
    if endpoints is None:
        return None
    wrong = next(filter(None, map(wrong_endpoint, endpoints)), None)
    if wrong is not None or len(endpoints) > MAX_ENDPOINTS:
        raise InvalidEndpoint(wrong or f"a key may have {MAX_ENDPOINTS} endpoints at most")
    return [*endpoints]


def _forgotten_at(expires: float) -> int:
    """Unix ms."""
    return int((expires + FORGET_AFTER_S) * 1000)


def _key(key_id: str) -> str:
    return f"cgh:apikey:{key_id}"


def _index(tenant: str) -> str:
    return tenant_key(tenant, "apikeys")
