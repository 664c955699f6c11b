"""The keys that a provider signs with, fetched from it and kept.

    known kid, fetched lately ─► used
    known kid, fetched long ago ─► used, and fetched again beside the request
    unknown kid ─► fetched again, at most once every `ask_every`, whoever invents how many
    provider out ─► what is known is used for `OUTAGE_S`

A key set is JSON (RFC 7517). Of it only public keys to verify with are taken: one of a kind that is secret by
nature (`oct`) never is, so no algorithm can take a public key for a secret.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from serve_apps.gateway.oidc.config import ProviderSpec, wrong_url
from serve_apps.gateway.oidc.errors import InvalidToken, ProviderUnavailable

FETCH_S: Final = 5.0
"""Longest that a provider may take to answer."""
MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2048
OUTAGE_S: Final = 24 * 3600.0
"""How long keys count that their provider could not confirm."""
RETRY_S: Final = 5.0
"""How soon a provider that did not answer is asked again."""
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"

PublicKey = RSAKey | ECKey | OKPKey

_KINDS: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_log = structlog.get_logger(__name__)


class _BadDocument(Exception):
    """What the provider answered is of no use. Holds why."""


class SigningKeys:
    """Those of one provider, for one event loop."""

    def __init__(self, provider: ProviderSpec, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._monotonic = monotonic
        self._keys: list[PublicKey] = []
        self._fetched = -math.inf
        self._asked: float | None = None
        self._out = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key of this id, or the only one where the token names none.

        Raises `InvalidToken` where the provider has none, `ProviderUnavailable` where it cannot be asked.
        """
        key = self._known(kid, algorithm)
        if key is not None:
            if self._age() >= self._provider.keys_for:
                self._ask()
            return key
        fetching = self._ask()
        if fetching is not None:
            # Shielded: a caller that leaves must not take the others' answer along.
            await asyncio.shield(fetching)
            key = self._known(kid, algorithm)
        if key is not None:
            return key
        if self._age() >= OUTAGE_S:
            raise ProviderUnavailable
        raise InvalidToken

    def _age(self) -> float:
        """Seconds since the provider told its keys."""
        return self._monotonic() - self._fetched

    def _known(self, kid: str | None, algorithm: str) -> PublicKey | None:
        if self._age() >= OUTAGE_S:
            return None
        fitting = [key for key in self._keys if _fits(key, algorithm)]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.kid == kid), None)

    def _ask(self) -> asyncio.Task[None] | None:
        """Fetches, unless that is done already or was just now."""
        if self._fetching is not None:
            return self._fetching
        pause = min(self._provider.ask_every, RETRY_S) if self._out else self._provider.ask_every
        if self._asked is not None and self._monotonic() - self._asked < pause:
            return None
        self._asked = self._monotonic()
        self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        asked = self._monotonic()
        try:
            async with asyncio.timeout(FETCH_S):
                self._keys = _public_keys(await self._documents())
            self._fetched = asked
            if self._out:
                _log.info("identity_provider_back", issuer=self._provider.issuer)
            self._out = False
        except (_BadDocument, aiohttp.ClientError, OSError, TimeoutError) as error:
            if not self._out:
                why = str(error) if isinstance(error, _BadDocument) else type(error).__name__
                _log.warning("identity_provider_out", issuer=self._provider.issuer, error=why)
            self._out = True
        finally:
            self._fetching = None

    async def _documents(self) -> dict[str, Any]:
        """The key set, by way of the discovery document where the config does not say where it is."""
        provider = self._provider
        async with aiohttp.ClientSession(auto_decompress=False, trust_env=False) as session:
            url = provider.jwks_url
            if url is None:
                about = await _document(session, provider.issuer.rstrip("/") + DISCOVERY_PATH)
                if about.get("issuer") != provider.issuer:
                    raise _BadDocument("the discovery document is of another issuer")
                url = str(about.get("jwks_uri"))
                if wrong_url(url, allow_http=provider.allow_http) is not None:
                    raise _BadDocument("the discovery document names no safe jwks_uri")
            return await _document(session, url)


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    async with session.get(url, allow_redirects=False, headers=headers) as response:
        if response.status != 200:
            raise _BadDocument(f"the provider answered {response.status}")
        body = bytearray()
        async for chunk in response.content.iter_chunked(64 * 1024):
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise _BadDocument(f"the document is larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _BadDocument("the document is no JSON object") from None


def _public_keys(document: dict[str, Any]) -> list[PublicKey]:
    """Those that can verify; what is not understood is left out (RFC 7517, section 5)."""
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise _BadDocument(f"the key set is no list of at most {MAX_KEYS} keys")
    keys = [key for each in listed if (key := _public_key(each)) is not None]
    if not keys:
        raise _BadDocument("the key set holds no key to verify with")
    return keys


def _public_key(entry: Any) -> PublicKey | None:
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    try:
        key = JWKRegistry.import_key(entry)
    except (JoseError, LookupError, ValueError, TypeError):
        return None
    if isinstance(key, RSAKey):
        return key if key.public_key.key_size >= MIN_RSA_BITS else None
    return key if isinstance(key, ECKey | OKPKey) else None


def _fits(key: PublicKey, algorithm: str) -> bool:
    return key.key_type == _KINDS[algorithm[:2]] and key.alg in (None, algorithm)
