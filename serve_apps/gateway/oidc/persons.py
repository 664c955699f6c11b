"""People who show a JSON Web Token of their provider in place of a key.

    token ─► seen lately? ─► header: allowed algorithm ─► issuer: a provider of ours ─► its key ─► signature
                                                                             ─► claims ─► Vouched

The config fixes the algorithms and the keys come from the provider alone: what a token says of keys (`jku`,
`x5u`, `jwk`, `x5c`) is not read, and one that demands to be understood in other ways (`crit`) is refused.
What was found is kept by the digest of the token for `KEPT_S` at most, and never past its end.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from serve_apps.gateway.callers import Caller
from serve_apps.gateway.oidc.claims import Vouched, vouched
from serve_apps.gateway.oidc.config import ProviderSpec
from serve_apps.gateway.oidc.errors import InvalidToken
from serve_apps.gateway.oidc.signing_keys import SigningKeys

MAX_TOKEN_LENGTH: Final = 16 * 1024
MAX_KID_LENGTH: Final = 256
KEPT_S: Final = 60.0
"""How long a signature that was found good is not verified again."""
CACHE_SIZE: Final = 10_000

_TYPES: Final = ("jwt", "at+jwt", "application/at+jwt")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Provider(NamedTuple):
    spec: ProviderSpec
    keys: SigningKeys


class _Seen(NamedTuple):
    vouched: Vouched
    until: float
    """Unix seconds until which it is not verified again."""


class Persons:
    """Args:
    providers: those whose word counts.
    clock: gives Unix seconds and decides on expiry.
    """

    def __init__(
        self,
        providers: Sequence[ProviderSpec],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = {
            spec.issuer: _Provider(spec, SigningKeys(spec, monotonic=monotonic)) for spec in providers
        }
        self._clock = clock
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()

    async def authenticate(self, token: str) -> Caller:
        """Who shows it, without the allowances of organisation and team.

        Raises `TokenRejected`, `ProviderUnavailable`.
        """
        if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            raise InvalidToken
        digest = hashlib.blake2b(token.encode(), digest_size=32, person=b"cgh-jwt").digest()
        now = self._clock()
        seen = self._seen.get(digest)
        if seen is not None and now < seen.until:
            self._seen.move_to_end(digest)
            return seen.vouched.caller
        found = await self._verify(token, now)
        self._seen[digest] = _Seen(found, min(found.until, now + KEPT_S))
        self._seen.move_to_end(digest)
        if len(self._seen) > CACHE_SIZE:
            self._seen.popitem(last=False)
        return found.caller

    async def _verify(self, token: str, now: float) -> Vouched:
        header, claims = _peek(token)
        issuer = claims.get("iss")
        provider = self._providers.get(issuer) if isinstance(issuer, str) else None
        algorithm, kid = header.get("alg"), header.get("kid")
        if provider is None or algorithm not in provider.spec.algorithms or not _is_plain(header):
            raise InvalidToken
        key = await provider.keys.find(kid, algorithm)
        registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        registry.max_header_length = registry.max_payload_length = MAX_TOKEN_LENGTH
        try:
            payload = jws.deserialize_compact(token, key, registry=registry).payload
            return vouched(provider.spec, _decode(payload), now)
        except (JoseError, msgspec.DecodeError, ValueError, TypeError, RecursionError):
            raise InvalidToken from None


def is_token(text: str) -> bool:
    """Whether it looks like one: three parts with dots between, which no key of ours has."""
    return text.count(".") == 2


def _is_plain(header: dict[str, Any]) -> bool:
    """Whether nothing in a header asks for more than to verify a signature with a named key."""
    kid, kind = header.get("kid"), header.get("typ", "JWT")
    return (
        (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID_LENGTH))
        and (isinstance(kind, str) and kind.lower() in _TYPES)
        and "crit" not in header
        and "b64" not in header
    )


def _peek(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims as they are said, which nobody vouches for yet."""
    header, _, rest = token.partition(".")
    payload, _, signature = rest.partition(".")
    if not signature:
        raise InvalidToken
    try:
        return _decode(_unpacked(header)), _decode(_unpacked(payload))
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError):
        raise InvalidToken from None


def _unpacked(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
