"""Who asks: the key in the `Authorization` header."""

from __future__ import annotations

from collections.abc import Mapping

from serve_apps.gateway.callers import Caller
from serve_apps.gateway.errors import Unauthorized
from serve_apps.gateway.keys import ExpiredKey, KeyRejected, KeyStore, RevokedKey


async def authenticate(keys: KeyStore, headers: Mapping[bytes, bytes]) -> Caller:
    """Whoever sent the request. Raises `Unauthorized`, `StoreUnavailable`."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        raise Unauthorized("No API key. Send it as 'Authorization: Bearer KEY'.", code="missing_api_key")
    try:
        record = await keys.authenticate(token.strip().decode("ascii", "replace"))
        return record.caller()
    except ExpiredKey:
        raise Unauthorized("This API key has expired.", code="expired_api_key") from None
    except RevokedKey:
        raise Unauthorized("This API key was revoked.", code="revoked_api_key") from None
    except KeyRejected:
        raise Unauthorized("Incorrect API key.") from None
