"""Keys that rotate, providers that go away, and documents that lie."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from joserfc.jwk import OctKey, RSAKey

from serve_apps.gateway.oidc import signing_keys as signing_keys_module
from serve_apps.gateway.oidc.errors import InvalidToken, ProviderUnavailable
from serve_apps.gateway.oidc.signing_keys import OUTAGE_S, SigningKeys
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.oidc.provider import FakeProvider, new_key

ABOUT = "/.well-known/openid-configuration"


@pytest.fixture
def keys(provider: FakeProvider, clock: Clock) -> SigningKeys:
    return SigningKeys(provider.spec(ask_every=30), monotonic=clock)


async def test_keys_are_fetched_once_for_all(provider: FakeProvider, keys: SigningKeys) -> None:
    found = await asyncio.gather(*(keys.find("k1", "RS256") for _ in range(20)))
    assert {key.kid for key in found} == {"k1"}
    assert provider.asked == [ABOUT, "/keys"]
    assert (await keys.find(None, "RS256")).kid == "k1"


async def test_a_key_that_is_new_is_fetched(provider: FakeProvider, keys: SigningKeys, clock: Clock) -> None:
    await keys.find("k1", "RS256")
    provider.keys = [new_key("k2")]
    clock.now += 31
    assert (await keys.find("k2", "RS256")).kid == "k2"
    with pytest.raises(InvalidToken):
        await keys.find("k1", "RS256")


async def test_invented_key_ids_ask_nobody(provider: FakeProvider, keys: SigningKeys, clock: Clock) -> None:
    await keys.find("k1", "RS256")
    for number in range(200):
        with pytest.raises(InvalidToken):
            await keys.find(f"evil-{number}", "RS256")
    assert len(provider.asked) == 2
    clock.now += 31
    for number in range(200):
        with pytest.raises(InvalidToken):
            await keys.find(f"evil-{number}", "RS256")
    assert len(provider.asked) == 4


async def test_old_keys_are_used_and_fetched_again_beside(
    provider: FakeProvider, keys: SigningKeys, clock: Clock
) -> None:
    await keys.find("k1", "RS256")
    provider.keys = [new_key("k2")]
    clock.now += 601
    assert (await keys.find("k1", "RS256")).kid == "k1"
    async with asyncio.timeout(60):
        while keys._fetching is not None:
            await asyncio.sleep(0.01)
    with pytest.raises(InvalidToken):
        await keys.find("k1", "RS256")


async def test_an_outage_is_survived_with_what_is_known(
    provider: FakeProvider, keys: SigningKeys, clock: Clock
) -> None:
    await keys.find("k1", "RS256")
    provider.says["/keys"] = lambda: web.Response(status=500)
    clock.now += 3600
    assert (await keys.find("k1", "RS256")).kid == "k1"
    clock.now += 31
    with pytest.raises(InvalidToken):
        await keys.find("k2", "RS256")
    clock.now += OUTAGE_S
    with pytest.raises(ProviderUnavailable):
        await keys.find("k1", "RS256")
    del provider.says["/keys"]
    with pytest.raises(ProviderUnavailable):
        await keys.find("k1", "RS256")
    clock.now += 6
    assert (await keys.find("k1", "RS256")).kid == "k1"


def huge() -> web.Response:
    return web.Response(body=b'{"keys": [' + b" " * 300_000 + b"]}", content_type="application/json")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (ABOUT, {"issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys"}),
        (ABOUT, {}),
        (ABOUT, []),
        (ABOUT, lambda: web.Response(text="<html>")),
        (ABOUT, lambda: web.Response(status=302, headers={"location": "/keys"})),
        (ABOUT, huge),
        ("/keys", huge),
        ("/keys", {"keys": []}),
        ("/keys", {"keys": {}}),
        ("/keys", {"keys": [7, None, {}, {"kty": "oct", "k": "AAAA", "kid": "k1"}]}),
        ("/keys", {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "k1"}]}),
        ("/keys", {"keys": [{"kty": "RSA", "n": 7, "e": [], "kid": "k1"}]}),
        ("/keys", {"keys": [{"kty": "EC", "crv": "none", "x": "a", "y": "b", "kid": "k1"}]}),
        ("/keys", {"keys": [{}] * 101}),
        ("/keys", lambda: web.Response(body=b"[" * 200_000, content_type="application/json")),
    ],
)
async def test_documents_of_no_use_give_no_keys(
    provider: FakeProvider, keys: SigningKeys, path: str, said: Any
) -> None:
    provider.says[path] = said
    with pytest.raises(ProviderUnavailable):
        await keys.find("k1", "RS256")


async def test_a_discovery_that_leads_to_http_is_not_followed(provider: FakeProvider) -> None:
    provider.says[ABOUT] = {"issuer": provider.issuer, "jwks_uri": "file:///etc/passwd"}
    with pytest.raises(ProviderUnavailable):
        await SigningKeys(provider.spec()).find("k1", "RS256")
    assert provider.asked == [ABOUT]


async def test_only_public_keys_to_verify_with_are_taken(provider: FakeProvider, keys: SigningKeys) -> None:
    good = new_key("good")
    provider.says["/keys"] = {
        "keys": [
            good.as_dict(private=False),
            new_key("private").as_dict(private=True),
            new_key("encrypts").as_dict(private=False, use="enc"),
            RSAKey.generate_key(2048, {"kid": "other", "alg": "RS512"}).as_dict(private=False),
            OctKey.generate_key(256, {"kid": "secret"}).as_dict(private=True),
        ]
    }
    assert (await keys.find("good", "RS256")).kid == "good"
    assert (await keys.find("good", "PS256")).kid == "good"
    for kid, algorithm in (
        *(("private", "RS256"), ("encrypts", "RS256"), ("secret", "RS256")),
        *(("other", "RS256"), ("good", "ES256")),
    ):
        with pytest.raises(InvalidToken):
            await keys.find(kid, algorithm)


async def test_a_provider_that_never_answers_is_not_waited_for_long(
    provider: FakeProvider, keys: SigningKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing_keys_module, "FETCH_S", 0.05)
    held = asyncio.Event()

    monkeypatch.setattr(keys, "_documents", held.wait)
    with pytest.raises(ProviderUnavailable):
        await keys.find("k1", "RS256")
