"""What the deploy config may say of identity providers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_apps.gateway.oidc.config import AuthSettings, ProviderSpec

GOOD = {"issuer": "https://id.example/", "audience": "clustergraph", "organisation": "acme"}


def test_little_has_to_be_said() -> None:
    spec = ProviderSpec.model_validate(GOOD)
    assert (spec.algorithms, spec.leeway, spec.team, spec.role) == (["RS256"], 60.0, "default", "member")
    assert spec.audiences == {"clustergraph"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"issuer": "http://id.example"}, "issuer: it must be an https"),
        ({"jwks_url": "http://id.example/keys"}, "jwks_url: it must be an https"),
        ({"jwks_url": "file:///etc/passwd", "allow_http": True}, "jwks_url"),
        ({"jwks_url": "https://u:p@id.example/keys"}, "without user or password"),
        ({"jwks_url": "https://"}, "host"),
        ({"jwks_url": "https://[::1"}, "no URL"),
        ({"organisation": "a b"}, "organisation"),
        ({"organisation": {"claim": "org", "values": {}}}, "organisation"),
        ({"role": "root"}, "role"),
        ({"role": {"claim": "r", "values": {"x": "root"}}}, "role"),
        ({"leeway": "1h"}, "leeway"),
        ({"endpoints": ["v1"]}, "endpoints"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        ProviderSpec.model_validate(GOOD | fields)


def test_an_issuer_is_there_once() -> None:
    with pytest.raises(ValidationError, match="more than once"):
        AuthSettings.model_validate({"oidc": [GOOD, GOOD | {"audience": "x"}]})
    assert AuthSettings().oidc == []
