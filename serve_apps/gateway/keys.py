"""API keys: who is asking.

    cgh_9f86d081884c7d659a2feaa0c55ad015_Zm9v...        cgh_<key id>_<secret>
        └─ 8 random bytes ┘└─ 8 of MAC ─┘

The store holds a keyed BLAKE2b of the secret, never the secret; the key of that hash, the *pepper*, is in
a file of its own, so a stolen store gives no key away. The key id carries a MAC under the same pepper: an
invented id is refused without asking the store, so guessing costs the guesser more than us.

A record is cached for `cache_ttl_s`, and so is the absence of one: a revocation is seen by every gateway
within that time, and the store answers at most once in that time for each key and gateway.

    KeyRejected
    ├── InvalidKey    malformed, unknown, or the wrong secret: deliberately the same to the caller
    ├── ExpiredKey    the right secret of a key past its end
    └── RevokedKey    the right secret of a revoked key
    PepperError       the pepper's file is unusable
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from runtime.secret_files import SecretFileError, load_or_create
from runtime.store.client import Script, Store
from runtime.store.naming import check_name, tenant_key
from serve_apps.gateway.callers import DEFAULT_TEAM, Caller, Role
from serve_apps.gateway.limits import UNLIMITED, Allowance

PREFIX = "cgh"
PEPPER_BYTES = 32
CACHE_SIZE = 10_000
"""Records, and absences, kept by a gateway."""
FORGET_AFTER_S = 90 * 24 * 3600
"""A revoked or expired key stays listed this long, then leaves the store."""

_SECRET_BYTES = 32
_ID_BYTES = 8
_CREATION_S = 60.0
"""An index entry this young may belong to a key that is being written."""
_PAGE = 500
_MAX_TOKEN_LENGTH = 256
_TOKEN = re.compile(rf"{PREFIX}_(?P<key_id>[0-9a-f]{{{4 * _ID_BYTES}}})_(?P<secret>[A-Za-z0-9_-]+)")
_REVOKE = Script("key_revoke")


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


class PepperError(Exception):
    """The file that holds the pepper cannot be used."""


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

    def caller(self) -> Caller:
        """Whoever shows this key."""
        return Caller(
            self.tenant,
            self.key_id,
            team=self.team,
            role=self.role,
            models=self.models,
            endpoints=self.endpoints,
            functions=self.functions,
            allowance=self.allowance,
        )


_decode_record = msgspec.msgpack.Decoder(KeyRecord).decode


class _Stored(NamedTuple):
    record: KeyRecord
    digest: bytes


class _Cached(NamedTuple):
    stored: _Stored | None
    until: float


class KeyStore:
    """Issues, checks and revokes keys.

    `pepper` is 32 bytes that never reach the store. `clock` gives Unix seconds and decides on expiry;
    `monotonic` ages the cache.
    """

    def __init__(
        self,
        store: Store,
        pepper: bytes,
        *,
        cache_ttl_s: float = 1.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if len(pepper) != PEPPER_BYTES:
            raise PepperError(f"the pepper must be {PEPPER_BYTES} bytes, not {len(pepper)}")
        self._store = store
        self._pepper = pepper
        self._cache_ttl_s = cache_ttl_s
        self._clock = clock
        self._monotonic = monotonic
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._reads: dict[str, asyncio.Task[_Stored | None]] = {}

    async def create(
        self,
        tenant: str,
        name: str,
        *,
        allowance: Allowance = UNLIMITED,
        expires: float | None = None,
        models: list[str] | None = None,
        functions: bool = False,
    ) -> tuple[str, KeyRecord]:
        """A new key: its token, which is not kept and cannot be shown again, and its record.

        Raises `InvalidName` (tenant), `StoreUnavailable`.
        """
        random = secrets.token_bytes(_ID_BYTES)
        record = KeyRecord(
            key_id=(random + self._id_mac(random)).hex(),
            tenant=check_name("tenant", tenant),
            name=name,
            created=self._clock(),
            expires=expires,
            allowance=allowance,
            models=models,
            functions=functions,
        )
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        # The index first: an entry without a key is skipped, a key without an entry could not be found.
        await self._store.execute("ZADD", _index(tenant), str(record.created), record.key_id)
        key = _key(record.key_id)
        fields = ("record", msgspec.msgpack.encode(record), "digest", self._digest(record.key_id, secret))
        await self._store.execute("HSET", key, *fields)
        if expires is not None:
            await self._store.execute("PEXPIREAT", key, int((expires + FORGET_AFTER_S) * 1000))
        return f"{PREFIX}_{record.key_id}_{secret}", record

    async def authenticate(self, token: str) -> KeyRecord:
        """The record of the key that `token` is. Raises `KeyRejected`, `StoreUnavailable`."""
        key_id, secret = self._parse(token)
        stored = await self._cached(key_id)
        if stored is None or not hmac.compare_digest(stored.digest, self._digest(key_id, secret)):
            raise InvalidKey
        record = stored.record
        if record.revoked:
            raise RevokedKey
        if record.expires is not None and self._clock() >= record.expires:
            raise ExpiredKey
        return record

    async def get(self, key_id: str) -> KeyRecord | None:
        """The record as the store has it now. Raises `InvalidName`, `StoreUnavailable`."""
        stored = await self._read(check_name("key id", key_id))
        return stored.record if stored else None

    async def revoke(self, key_id: str) -> bool:
        """Whether there was such a key. Every gateway refuses it within `cache_ttl_s`; this one at once.

        Raises `InvalidName`, `StoreUnavailable`.
        """
        key = _key(check_name("key id", key_id))
        found = await self._store.run(_REVOKE, [key], [FORGET_AFTER_S * 1000])
        self._cache.pop(key_id, None)
        self._reads.pop(key_id, None)
        return bool(found)

    async def _cached(self, key_id: str) -> _Stored | None:
        """The key as it was at most `cache_ttl_s` ago. Calls that miss together share one read."""
        cached = self._cache.get(key_id)
        if cached is not None and self._monotonic() < cached.until:
            self._cache.move_to_end(key_id)
            return cached.stored
        read = self._reads.get(key_id)
        if read is None:
            read = asyncio.get_running_loop().create_task(self._read_into_cache(key_id))
            self._reads[key_id] = read
            read.add_done_callback(lambda done: self._forget_read(key_id, done))
        # Shielded: a caller that leaves must not take the others' answer along.
        return await asyncio.shield(read)

    async def _read_into_cache(self, key_id: str) -> _Stored | None:
        # Aged from before the read, so that a revocation during it cannot hide for longer.
        until = self._monotonic() + self._cache_ttl_s
        stored = await self._read(key_id)
        if self._reads.get(key_id) is asyncio.current_task():
            self._cache[key_id] = _Cached(stored, until)
            self._cache.move_to_end(key_id)
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return stored

    def _forget_read(self, key_id: str, read: asyncio.Task[_Stored | None]) -> None:
        if self._reads.get(key_id) is read:
            del self._reads[key_id]
        if not read.cancelled():
            read.exception()  # seen by those who waited, if any still did

    async def _read(self, key_id: str) -> _Stored | None:
        record, digest, revoked = await self._store.execute(
            "HMGET", _key(key_id), "record", "digest", "revoked"
        )
        if record is None or digest is None:
            return None
        decoded = _decode_record(record)
        return _Stored(msgspec.structs.replace(decoded, revoked=revoked is not None), digest)

    def _parse(self, token: str) -> tuple[str, str]:
        if len(token) > _MAX_TOKEN_LENGTH:
            raise InvalidKey
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise InvalidKey
        raw = bytes.fromhex(match["key_id"])
        if not hmac.compare_digest(raw[_ID_BYTES:], self._id_mac(raw[:_ID_BYTES])):
            raise InvalidKey
        return match["key_id"], match["secret"]

    def _id_mac(self, random: bytes) -> bytes:
        return hashlib.blake2b(random, key=self._pepper, digest_size=_ID_BYTES, person=b"cgh-key-id").digest()

    def _digest(self, key_id: str, secret: str) -> bytes:
        text = f"{key_id}:{secret}".encode()
        return hashlib.blake2b(text, key=self._pepper, digest_size=32, person=b"cgh-key-secret").digest()

    async def list(self, tenant: str) -> AsyncIterator[KeyRecord]:
        """The tenant's keys, oldest first, a page at a time. Raises `InvalidName`, `StoreUnavailable`."""
        index, start = _index(tenant), 0
        while page := await self._store.execute("ZRANGE", index, start, start + _PAGE - 1, "WITHSCORES"):
            gone = 0
            for key_id, created in zip(page[::2], page[1::2], strict=True):
                stored = await self._read(key_id.decode())
                if stored is not None:
                    yield stored.record
                elif float(created) < self._clock() - _CREATION_S:
                    gone += await self._store.execute("ZREM", index, key_id)
            start += _PAGE - gone


def load_or_create_pepper(path: Path) -> bytes:
    """The pepper in the file `path`, made first (mode 0600) if there is none.

    Any number of processes may call it at once: all get the same bytes, and none sees half a file.
    Raises `PepperError` if the file is not 32 bytes that only its owner can read.
    """
    try:
        pepper = load_or_create(path, PEPPER_BYTES)
    except SecretFileError as error:
        raise PepperError(str(error)) from None
    if len(pepper) != PEPPER_BYTES:
        raise PepperError(f"{path} holds {len(pepper)} bytes, not {PEPPER_BYTES}: it is no pepper of ours")
    return pepper


def _key(key_id: str) -> str:
    return f"cgh:apikey:{key_id}"


def _index(tenant: str) -> str:
    return tenant_key(tenant, "apikeys")
