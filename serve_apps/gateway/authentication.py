"""Who asks, and whether it may ask for this: the one place where every route learns of its caller.

    a key, or a token of an identity provider ─► organisation and team ─► Caller ─► may it call this path?

Shown as `Authorization: Bearer ...` or as `x-api-key: ...`, as SDKs have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from serve_apps.gateway.callers import Caller
from serve_apps.gateway.directory import Directory, Standing
from serve_apps.gateway.errors import Forbidden, Unauthorized, Unavailable
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.keys import ExpiredKey, KeyRecord, KeyRejected, KeyStore, RevokedKey
from serve_apps.gateway.oidc.errors import ExpiredToken, NotMapped, ProviderUnavailable, TokenRejected
from serve_apps.gateway.oidc.persons import Persons, is_token
from serve_apps.gateway.rights import may_call

PROVIDER_RETRY_S: Final = 5.0
_TOLD_ENDPOINTS: Final = 10
_BARRED: Final[Mapping[str, str]] = {
    "organisation_suspended": "Your organisation is suspended.",
    "organisation_deleted": "Your organisation was deleted.",
    "team_suspended": "Your team is suspended.",
    "team_deleted": "Your team was deleted.",
}


class Authenticator:
    """Learns who sent a request from what it shows: a key, or where there are `persons` a token."""

    def __init__(self, keys: KeyStore, directory: Directory, persons: Persons | None = None) -> None:
        self._keys = keys
        self._directory = directory
        self._persons = persons

    async def admit(self, exchange: Exchange) -> Caller:
        """Whoever sent the request, if it may call its path.

        Raises `Unauthorized`, `Forbidden`, `StoreUnavailable`.
        """
        caller = await self.authenticate(exchange.headers)
        if caller.endpoints is not None and not may_call(caller, exchange.path):
            listed = ", ".join(caller.endpoints[:_TOLD_ENDPOINTS]) or "none"
            raise Forbidden(
                f"You may not call {exchange.path[:200]!r}. Your endpoints are: {listed}.",
                code="endpoint_not_allowed",
            )
        return caller

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whoever shows these headers.

        Raises `Unauthorized`, `Forbidden`, `Unavailable`, `StoreUnavailable`.
        """
        shown = token_of(headers)
        if self._persons is not None and is_token(shown):
            caller = await _person(self._persons, shown)
            standing = await self._standing(caller.tenant, caller.team)
            return replace(caller, organisation_allowance=standing.organisation, team_allowance=standing.team)
        record = await self._key(shown)
        return record.caller(await self._standing(record.tenant, record.team))

    async def _key(self, shown: str) -> KeyRecord:
        try:
            return await self._keys.authenticate(shown)
        except ExpiredKey:
            raise Unauthorized("This API key has expired.", code="expired_api_key") from None
        except RevokedKey:
            raise Unauthorized("This API key was revoked.", code="revoked_api_key") from None
        except KeyRejected:
            raise Unauthorized("Incorrect API key.") from None

    async def _standing(self, tenant: str, team: str) -> Standing:
        standing = await self._directory.standing(tenant, team)
        if standing.barred is not None:
            raise Forbidden(_BARRED[standing.barred], code=standing.barred)
        return standing


async def _person(persons: Persons, token: str) -> Caller:
    try:
        return await persons.authenticate(token)
    except ExpiredToken:
        raise Unauthorized("This token has expired. Sign in again.", code="expired_token") from None
    except NotMapped as error:
        raise Forbidden(
            f"You are signed in, but your provider's claims give you no {error.field} here. Ask an operator.",
            code="person_not_mapped",
        ) from None
    except TokenRejected:
        raise Unauthorized("This token does not count here.", code="invalid_token") from None
    except ProviderUnavailable:
        raise Unavailable(
            "Your identity provider cannot be reached.",
            code="identity_provider_unavailable",
            retry_after_s=PROVIDER_RETRY_S,
        ) from None


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
