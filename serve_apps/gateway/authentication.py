"""Who asks, and whether it may ask for this: the one place where every route learns of its caller.

Authorization: Bearer KEY  ┐
x-api-key: KEY             ┴─► key ─► its organisation and team ─► Caller ─► may it call this path?
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from serve_apps.gateway.callers import Caller
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.errors import Forbidden, Unauthorized
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.keys import ExpiredKey, KeyRejected, KeyStore, RevokedKey
from serve_apps.gateway.rights import may_call

_TOLD_ENDPOINTS: Final = 10
_BARRED: Final[Mapping[str, str]] = {
    "organisation_suspended": "The organisation of this key is suspended.",
    "organisation_deleted": "The organisation of this key was deleted.",
    "team_suspended": "The team of this key is suspended.",
    "team_deleted": "The team of this key was deleted.",
}


class Authenticator:
    """Learns who sent a request from the key that it shows."""

    def __init__(self, keys: KeyStore, directory: Directory) -> None:
        self._keys = keys
        self._directory = directory

    async def admit(self, exchange: Exchange) -> Caller:
        """Whoever sent the request, if it may call its path.

        Raises `Unauthorized`, `Forbidden`, `StoreUnavailable`.
        """
        caller = await self.authenticate(exchange.headers)
        if caller.endpoints is not None and not may_call(caller, exchange.path):
            listed = ", ".join(caller.endpoints[:_TOLD_ENDPOINTS]) or "none"
            raise Forbidden(
                f"This API key may not call {exchange.path[:200]!r}. Its endpoints are: {listed}.",
                code="endpoint_not_allowed",
            )
        return caller

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whoever shows these headers. Raises `Unauthorized`, `Forbidden`, `StoreUnavailable`."""
        try:
            record = await self._keys.authenticate(token_of(headers))
        except ExpiredKey:
            raise Unauthorized("This API key has expired.", code="expired_api_key") from None
        except RevokedKey:
            raise Unauthorized("This API key was revoked.", code="revoked_api_key") from None
        except KeyRejected:
            raise Unauthorized("Incorrect API key.") from None
        standing = await self._directory.standing(record.tenant, record.team)
        if standing.barred is not None:
            raise Forbidden(_BARRED[standing.barred], code=standing.barred)
        return record.caller(standing)


def token_of(headers: Mapping[bytes, bytes]) -> str:
    """What the request shows, in either of the headers that SDKs send. Raises `Unauthorized`."""
    shown, own = headers.get(b"authorization"), headers.get(b"x-api-key", b"").strip()
    if shown is not None:
        scheme, _, token = shown.partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token:
            raise _no_key()
        if own and own != token:
            raise Unauthorized("'Authorization' and 'x-api-key' hold different keys. Send one of them.")
        own = token
    if not own:
        raise _no_key()
    return own.decode("ascii", "replace")


def _no_key() -> Unauthorized:
    return Unauthorized(
        "No API key. Send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.", code="missing_api_key"
    )
