"""What an API key looks like, and what of it may be kept.

    cgh_9f86d081884c7d659a2feaa0c55ad015_Zm9v...        cgh_<key id>_<secret>
        └─ 8 random bytes ┘└─ 8 of MAC ─┘

Of the secret only a BLAKE2b is kept, keyed with the *pepper*, which is in a file of its own: a stolen store
gives no key away. The key id carries a MAC under the same pepper: an invented id is refused without asking
the store, so guessing costs the guesser more than us.

    PepperError       the pepper's file is unusable
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Final

from runtime.secret_files import SecretFileError, load_or_create

PREFIX: Final = "cgh"
PEPPER_BYTES: Final = 32
MAX_TOKEN_LENGTH: Final = 256

_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 8
_TOKEN = re.compile(rf"{PREFIX}_(?P<key_id>[0-9a-f]{{{4 * _ID_BYTES}}})_(?P<secret>[A-Za-z0-9_-]+)")


class PepperError(Exception):
    """The file that holds the pepper cannot be used."""


class KeyTokens:
    """Makes and reads keys under one `pepper`, 32 bytes that never reach the store."""

    def __init__(self, pepper: bytes) -> None:
        if len(pepper) != PEPPER_BYTES:
            raise PepperError(f"the pepper must be {PEPPER_BYTES} bytes, not {len(pepper)}")
        self._pepper = pepper

    def new_id(self) -> str:
        random = secrets.token_bytes(_ID_BYTES)
        return (random + self._id_mac(random)).hex()

    def new_token(self, key_id: str) -> tuple[str, bytes]:
        """A token for this id, with a new secret, and the digest of the secret."""
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        return f"{PREFIX}_{key_id}_{secret}", self.digest(key_id, secret)

    def parse(self, token: str) -> tuple[str, str] | None:
        """Key id and secret of a token; None for what cannot be one of ours."""
        match = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_LENGTH else None
        if match is None:
            return None
        raw = bytes.fromhex(match["key_id"])
        if not hmac.compare_digest(raw[_ID_BYTES:], self._id_mac(raw[:_ID_BYTES])):
            return None
        return match["key_id"], match["secret"]

    def digest(self, key_id: str, secret: str) -> bytes:
        text = f"{key_id}:{secret}".encode()
        return hashlib.blake2b(text, key=self._pepper, digest_size=32, person=b"cgh-key-secret").digest()

    def _id_mac(self, random: bytes) -> bytes:
        return hashlib.blake2b(random, key=self._pepper, digest_size=_ID_BYTES, person=b"cgh-key-id").digest()


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
