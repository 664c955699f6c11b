"""Tokens, good and forged, of a provider that runs."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import time
from typing import Any

import pytest
from joserfc.jwk import ECKey

from serve_apps.gateway.oidc import persons as persons_module
from serve_apps.gateway.oidc.errors import ExpiredToken, InvalidToken, NotMapped, ProviderUnavailable
from serve_apps.gateway.oidc.persons import KEPT_S, Persons
from tests.serve_apps.clock import Clock
from tests.serve_apps.gateway.oidc.provider import FakeProvider, new_key

NO_SUCH_PROVIDER = "http://127.0.0.1:9"


def packed(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


async def test_a_good_token_is_its_person(provider: FakeProvider) -> None:
    persons = Persons([provider.spec(team="research", models=["m"], endpoints=["/v1/*"])])
    caller = await persons.authenticate(provider.token())
    assert (caller.tenant, caller.team, caller.role) == ("acme", "research", "member")
    assert (caller.models, caller.endpoints, caller.functions) == (["m"], ["/v1/*"], False)
    assert caller.id.startswith("user-")
    assert "ada" not in caller.id
    again = await persons.authenticate(provider.token(jti="another"))
    other = await persons.authenticate(provider.token(sub="bob"))
    assert again.id == caller.id != other.id


async def test_a_token_of_an_elliptic_key_and_with_a_fixed_place_of_keys(provider: FakeProvider) -> None:
    key = ECKey.generate_key("P-256", {"kid": "ec"})
    provider.keys.append(key)
    persons = Persons([provider.spec(algorithms=["ES256"], jwks_url=f"{provider.issuer}/keys")])
    assert (await persons.authenticate(provider.token(key, {"alg": "ES256"}))).tenant == "acme"
    assert provider.asked == ["/keys"]


async def test_each_provider_vouches_for_its_own(provider: FakeProvider) -> None:
    async with FakeProvider(2).serving() as other:
        persons = Persons([provider.spec(), other.spec(organisation="rival")])
        assert (await persons.authenticate(provider.token())).tenant == "acme"
        assert (await persons.authenticate(other.token())).tenant == "rival"
        for forged in (other.token(iss=provider.issuer), provider.token(iss=other.issuer)):
            with pytest.raises(InvalidToken):
                await persons.authenticate(forged)


FORGED: dict[str, Any] = {
    "unsigned": lambda p: f"{packed({'alg': 'none'})}.{packed(p.claims())}.",
    "unsigned, with a signature": lambda p: (
        f"{packed({'alg': 'none', 'kid': 'k1'})}.{packed(p.claims())}.AAAA"
    ),
    "alg in capitals": lambda p: f"{packed({'alg': 'NONE'})}.{packed(p.claims())}.AAAA",
    "no alg": lambda p: f"{packed({'kid': 'k1'})}.{packed(p.claims())}.AAAA",
    "alg is a list": lambda p: f"{packed({'alg': ['RS256'], 'kid': 'k1'})}.{packed(p.claims())}.AAAA",
    "public key as secret": lambda p: _maced(p, p.keys[0].as_pem(private=False)),
    "public key as secret, in DER": lambda p: _maced(p, p.keys[0].as_der(private=False)),
    "an algorithm not allowed": lambda p: p.token(header={"alg": "PS256"}),
    "another's key under our id": lambda p: p.token(new_key("k1")),
    "another's key": lambda p: p.token(new_key("evil")),
    "no key id, another's key": lambda p: p.token(new_key("evil"), {"kid": None}),
    "key id with a path": lambda p: p.token(header={"kid": "../../../../dev/null"}),
    "key id with SQL": lambda p: p.token(header={"kid": "k1' OR '1'='1"}),
    "key id that is a number": lambda p: f"{packed({'alg': 'RS256', 'kid': 1})}.{packed(p.claims())}.AAAA",
    "key id that is huge": lambda p: p.token(header={"kid": "k" * 300}),
    "key in the header": lambda p: p.token(
        (evil := new_key("evil")), {"kid": None, "jwk": evil.as_dict(private=False)}
    ),
    "keys elsewhere": lambda p: p.token(
        new_key("evil"), {"jku": f"{p.issuer}/evil", "x5u": f"{p.issuer}/evil"}
    ),
    "critical extension": lambda p: (
        f"{packed({'alg': 'RS256', 'kid': 'k1', 'crit': ['exp']})}.{packed(p.claims())}.AAAA"
    ),
    "unencoded payload": lambda p: (
        f"{packed({'alg': 'RS256', 'kid': 'k1', 'b64': False})}.{packed(p.claims())}.AAAA"
    ),
    "another kind of token": lambda p: p.token(header={"typ": "logout+jwt"}),
    "wrong audience": lambda p: p.token(aud="others"),
    "no audience": lambda p: p.token(aud=None),
    "audiences that are no texts": lambda p: p.token(aud=[{"clustergraph": 1}, 7]),
    "wrong issuer": lambda p: p.token(iss="https://evil.example"),
    "issuer with a slash": lambda p: p.token(iss=f"{p.issuer}/"),
    "issuer that is a list": lambda p: p.token(iss=[p.issuer]),
    "not yet": lambda p: p.token(nbf=time.time() + 1000),
    "made in the future": lambda p: p.token(iat=time.time() + 1000),
    "no end": lambda p: p.token(exp=None),
    "an end that is a text": lambda p: p.token(exp="9999999999"),
    "an end that is huge": lambda p: p.token(exp=1e300),
    "nobody": lambda p: p.token(sub=None),
    "a person without a name": lambda p: p.token(sub=""),
    "a person with a huge name": lambda p: p.token(sub="a" * 256),
    "huge": lambda p: p.token(more="x" * 20_000),
    "other claims": lambda p: _with_claims(p.token(), p.claims(sub="root")),
    "cut": lambda p: p.token()[:-8],
    "deep": lambda _: f"{packed({'alg': 'RS256'})}.{packed(b'[' * 9000)}.AAAA",
    "no JSON": lambda _: f"{packed(b'{')}.{packed(b'{')}.AAAA",
    "no base64": lambda _: "!.!.!",
    "empty": lambda _: "..",
    "not ASCII": lambda p: f"{p.token()}é",
}


def _maced(provider: FakeProvider, secret: bytes) -> str:
    signed = f"{packed({'alg': 'HS256', 'kid': 'k1'})}.{packed(provider.claims())}"
    return f"{signed}.{packed(hmac.digest(secret, signed.encode(), 'sha256'))}"


def _with_claims(token: str, claims: dict[str, Any]) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{packed(claims)}.{signature}"


@pytest.mark.parametrize("attack", FORGED)
async def test_no_forged_token_counts(
    provider: FakeProvider, attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    persons = Persons([provider.spec()])
    await persons.authenticate(provider.token())
    forged = FORGED[attack](provider)
    with pytest.raises(InvalidToken) as refused:
        await persons.authenticate(forged)
    assert str(refused.value) == ""
    assert "ada" not in caplog.text
    assert (forged[30:60] or "none") not in caplog.text
    assert set(provider.asked) <= {"/.well-known/openid-configuration", "/keys"}


async def test_an_expired_token_says_so(provider: FakeProvider) -> None:
    persons = Persons([provider.spec(leeway=10)])
    now = time.time()
    await persons.authenticate(provider.token(exp=now - 5, iat=now - 50))
    with pytest.raises(ExpiredToken):
        await persons.authenticate(provider.token(exp=now - 11, iat=now - 50))


async def test_what_was_found_is_kept_and_never_past_the_end(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(time.time())
    persons = Persons([provider.spec(leeway=1)], clock=clock)
    verified = 0
    verify = persons._verify

    async def counted(token: str, now: float) -> Any:
        nonlocal verified
        verified += 1
        return await verify(token, now)

    monkeypatch.setattr(persons, "_verify", counted)
    token, short = provider.token(), provider.token(exp=int(clock.now) + 20)
    for _ in range(3):
        await persons.authenticate(token)
        await persons.authenticate(short)
    assert verified == 2
    clock.now += 25
    with pytest.raises(ExpiredToken):
        await persons.authenticate(short)
    clock.now += KEPT_S
    await persons.authenticate(token)
    assert verified == 4


async def test_what_is_kept_is_bounded(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persons_module, "CACHE_SIZE", 3)
    persons = Persons([provider.spec()])
    for number in range(6):
        await persons.authenticate(provider.token(sub=f"p{number}"))
    assert len(persons._seen) == 3


async def test_a_provider_that_was_never_reached_is_not_the_bearer_s_fault() -> None:
    away = FakeProvider()
    away.issuer = NO_SUCH_PROVIDER
    with pytest.raises(ProviderUnavailable):
        await Persons([away.spec()]).authenticate(away.token())


async def test_whom_the_config_does_not_map_is_refused(provider: FakeProvider) -> None:
    persons = Persons([provider.spec(role={"claim": "groups", "values": {"bosses": "owner"}})])
    with pytest.raises(NotMapped, match="role"):
        await persons.authenticate(provider.token(groups=["others"]))
    assert (await persons.authenticate(provider.token(groups=["bosses"]))).role == "owner"
