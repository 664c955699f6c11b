"""Whom claims mean."""

from __future__ import annotations

from typing import Any

import pytest

from serve_apps.gateway.callers import Caller
from serve_apps.gateway.oidc.claims import vouched
from serve_apps.gateway.oidc.config import ProviderSpec
from serve_apps.gateway.oidc.errors import InvalidToken, NotMapped

NOW = 1_900_000_000.0
ISSUER = "https://id.example"


def person(claims: dict[str, Any], **fields: Any) -> Caller:
    spec = ProviderSpec.model_validate(
        {"issuer": ISSUER, "audience": ["a", "b"], "organisation": "acme", **fields}
    )
    usual = {"iss": ISSUER, "aud": "b", "sub": "ada", "exp": NOW + 10}
    return vouched(spec, usual | claims, NOW).caller


def test_fixed_values_need_no_claims() -> None:
    caller = person({}, team="t", role="service", models=["m"])
    assert (caller.tenant, caller.team, caller.role, caller.models) == ("acme", "t", "service", ["m"])
    assert person({}).models is None


@pytest.mark.parametrize(
    ("claims", "organisation"),
    [({"org": "beta"}, "beta"), ({"org": ["beta"]}, "beta"), ({}, None), ({"org": ["a", "b"]}, None)]
    + [({"org": bad}, None) for bad in ("", "a:b", "{x}", "a\0", 7, {"beta": 1}, "x" * 129)],
)
def test_an_organisation_by_name(claims: dict[str, Any], organisation: str | None) -> None:
    if organisation is None:
        with pytest.raises(NotMapped, match="organisation"):
            person(claims, organisation={"claim": "org"})
    else:
        assert person(claims, organisation={"claim": "org"}).tenant == organisation


def test_a_default_is_for_claims_that_are_missing_only() -> None:
    spec = {"claim": "org", "default": "visitors"}
    assert person({}, organisation=spec).tenant == "visitors"
    with pytest.raises(NotMapped):
        person({"org": ["a", "b"]}, organisation=spec)


def test_the_first_value_of_the_config_that_is_claimed_counts() -> None:
    role = {
        "claim": ["realm", "roles"],
        "values": {"cg-admin": "admin", "cg-boss": "owner"},
        "default": "member",
    }
    assert person({"realm": {"roles": ["x", "cg-boss", "cg-admin"]}}, role=role).role == "admin"
    assert person({"realm": {"roles": "cg-boss"}}, role=role).role == "owner"
    for claims in ({}, {"realm": 1}, {"realm": {"roles": [1, None]}}, {"realm.roles": ["cg-admin"]}):
        assert person(claims, role=role).role == "member"


def test_a_team_by_group() -> None:
    team = {"claim": "groups", "values": {"g-1": "research", "g-2": "legal"}}
    assert person({"groups": ["g-2"]}, team=team).team == "legal"
    with pytest.raises(NotMapped, match="team"):
        person({"groups": ["g-3"]}, team=team)


def test_models_of_all_groups_count() -> None:
    models = {"claim": "groups", "values": {"a": ["m1", "m2"], "b": ["m2", "graph/g"]}}
    assert person({"groups": ["b", "a"]}, models=models).models == ["m1", "m2", "graph/g"]
    with pytest.raises(NotMapped, match="models"):
        person({}, models=models)
    assert person({}, models={**models, "default": []}).models == []


def test_audiences_may_be_several_on_both_sides() -> None:
    assert person({"aud": ["x", "a"]}).tenant == "acme"
    for audience in (["x"], [], None, "ab", {"a": 1}):
        with pytest.raises(InvalidToken):
            person({"aud": audience})


def test_odd_names_of_people_are_people() -> None:
    assert person({"sub": "\ud800"}).id != person({"sub": "\0"}).id
