"""Who asks: the key in the `Authorization` header."""

from __future__ import annotations

from collections.abc import Mapping

from serve_apps.gateway.errors import Unauthorized
from serve_apps.gateway.keys import ExpiredKey, KeyRecord, KeyRejected, KeyStore, RevokedKey


async def authenticate(keys: KeyStore, headers: Mapping[bytes, bytes]) -> KeyRecord:
    """The record of the request's key. Raises `Unauthorized`, `StoreUnavailable`."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        raise Unauthorized("No API key. Send it as 'Authorization: Bearer KEY'.", code="missing_api_key")
    try:
        return await keys.authenticate(token.strip().decode("ascii", "replace"))
    except ExpiredKey:
        raise Unauthorized("This API key has expired.", code="expired_api_key") from None
    except RevokedKey:
        raise Unauthorized("This API key was revoked.", code="revoked_api_key") from None
    except KeyRejected:
        raise Unauthorized("Incorrect API key.") from None
