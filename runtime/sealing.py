"""Encryption of what the store keeps of a tenant's runs: AES-256-GCM, a key for each tenant.

    0xC1 | version 1 | id of the data key, 4 bytes | nonce, 12 random bytes | ciphertext | tag, 16 bytes

The key of a tenant is derived from the data key with HKDF-SHA256 (RFC 5869). The place in the store, key and
field, is authenticated with the ciphertext (NIST SP 800-38D): it opens nowhere else and for no other tenant.
An older ciphertext put back in its own place does open: nothing in the store can tell. With random nonces a
key is good for 2**32 values; rotate the data key before.

0xC1 begins no msgpack value, so what was sealed is known for what it is. A tenant whose runs are sealed has
nothing read that is not: whoever can write to the store cannot slip it in. What was kept before is unreadable
then; what is sealed stays readable when the sealing ends, as long as the key is there.

    SealingError
    ├── DataKeyError    the data key is missing or unusable
    └── SealBroken      what is in the store was not written there by us
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from runtime.secret_files import SecretFileError, load_or_create

KEY_BYTES = 32
MARK = b"\xc1"
VERSION = b"\x01"
EVERYONE = "*"
"""In place of a tenant: the runs of all are sealed."""

_ID_BYTES = 4
_NONCE_BYTES = 12
_TAG_BYTES = 16
_HEAD = len(MARK) + len(VERSION)
_DIGEST_BYTES = 16


log = structlog.get_logger(__name__)


class SealingError(Exception):
    """Base of what this module raises. Holds no key and no plain text."""


class DataKeyError(SealingError):
    """The data key is missing, or is no key."""


class SealBroken(SealingError):
    """A value in the store is not what was written there: changed, swapped, plain or of another key."""


class Seal(Protocol):
    """What a store of values needs: of one tenant."""

    def close(self, plain: bytes, key: str, field: str = "") -> bytes:
        """`plain` as it is kept in the `field` of the `key`."""
        ...

    def open(self, kept: bytes, key: str, field: str = "") -> bytes:
        """What was closed there. Raises `SealBroken`."""
        ...

    def digest(self, plain: bytes) -> bytes:
        """16 bytes, equal for equal values, that tell nobody else what the value is."""
        ...


class Sealing:
    """Whose runs are sealed, and with what.

    `keys` are data keys of `KEY_BYTES`, the newest first: it closes, all open. `tenants` are names, or
    `EVERYONE`. Raises `DataKeyError` where somebody's runs are to be sealed and there is no key.
    """

    def __init__(self, keys: Sequence[bytes] = (), tenants: Collection[str] = ()) -> None:
        if any(len(key) != KEY_BYTES for key in keys):
            raise DataKeyError(f"a data key has {KEY_BYTES} bytes")
        if tenants and not keys:
            raise DataKeyError("runs are to be sealed, and there is no data key")
        self._keys = tuple(keys)
        self._tenants = frozenset(tenants)
        self.of = lru_cache(maxsize=1024)(self._of)
        """The seal of a tenant."""

    def _of(self, tenant: str) -> Seal:
        sealed = bool(self._tenants & {tenant, EVERYONE})
        return _TenantSeal([_TenantKey(key, tenant) for key in self._keys], sealed)


NOTHING_SEALED = Sealing()


class _TenantKey:
    def __init__(self, data_key: bytes, tenant: str) -> None:
        self.id = _derive(data_key, b"cgh data key id", _ID_BYTES)
        self.cipher = AESGCM(_derive(data_key, b"cgh runs of " + tenant.encode(), KEY_BYTES))
        self.digest_key = _derive(data_key, b"cgh digests of " + tenant.encode(), KEY_BYTES)


class _TenantSeal:
    def __init__(self, keys: list[_TenantKey], sealed: bool) -> None:
        self._keys = keys
        self._by_id = {key.id: key for key in keys}
        self._sealed = sealed

    def close(self, plain: bytes, key: str, field: str = "") -> bytes:
        if not self._sealed:
            return plain
        newest = self._keys[0]
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = MARK + VERSION + newest.id
        return head + nonce + newest.cipher.encrypt(nonce, plain, _place(head, key, field))

    def open(self, kept: bytes, key: str, field: str = "") -> bytes:
        if kept[:1] != MARK:
            if self._sealed:
                raise SealBroken(f"what is kept in {key} is not sealed, and the tenant's runs are")
            return kept
        head, rest = kept[: _HEAD + _ID_BYTES], kept[_HEAD + _ID_BYTES :]
        found = self._by_id.get(head[_HEAD:])
        if head[:_HEAD] != MARK + VERSION or found is None or len(rest) < _NONCE_BYTES + _TAG_BYTES:
            raise SealBroken(f"what is kept in {key} was sealed with a key that is not here")
        try:
            return found.cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _place(head, key, field))
        except InvalidTag:
            raise SealBroken(f"what is kept in {key} is not what was sealed there") from None

    def digest(self, plain: bytes) -> bytes:
        key = self._keys[0].digest_key if self._sealed else b""
        return hashlib.blake2b(plain, key=key, digest_size=_DIGEST_BYTES).digest()


def opened(seal: Seal, kept: bytes, key: str, field: str = "") -> bytes | None:
    """What was closed there; None, and a line in the log, where that is not what is kept."""
    try:
        return seal.open(kept, key, field)
    except SealBroken as error:
        log.warning("seal_broken", reason=str(error))
        return None


def _place(head: bytes, key: str, field: str) -> bytes:
    return b"\x00".join((head, key.encode(), field.encode()))


def _derive(data_key: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, None, purpose).derive(data_key)


def parse_keys(text: str) -> list[bytes]:
    """Data keys in base64, the newest first, with commas between them. Raises `DataKeyError`."""
    try:
        keys = [base64.b64decode(each.strip(), validate=True) for each in text.split(",")]
    except (binascii.Error, ValueError):
        raise DataKeyError("data keys are base64, with commas between them") from None
    if any(len(key) != KEY_BYTES for key in keys):
        raise DataKeyError(f"a data key has {KEY_BYTES} bytes before it is written in base64")
    return keys


def load_or_create_keys(path: Path) -> list[bytes]:
    """The data keys in the file `path`, one behind the other, the newest first; one is made if there is none.

    Any number of processes may call it at once: all get the same, and none sees half a file.
    Raises `DataKeyError` for a file that others may read, or that holds no keys.
    """
    try:
        held = load_or_create(path, KEY_BYTES)
    except SecretFileError as error:
        raise DataKeyError(str(error)) from None
    if not held or len(held) % KEY_BYTES:
        raise DataKeyError(f"{path} holds {len(held)} bytes, which are no keys of {KEY_BYTES} bytes")
    return [held[start : start + KEY_BYTES] for start in range(0, len(held), KEY_BYTES)]
