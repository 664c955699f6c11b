"""Who may administer what."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from serve_apps.gateway.administration import Deed, exceeding, refusal, sees
from serve_apps.gateway.callers import Caller, Role
from serve_apps.gateway.directory import Organisation, Team
from serve_apps.gateway.keys import KeyRecord
from serve_apps.gateway.limits import Allowance, Limits

ADMIN = Caller("platform", "root", role="admin")
OWNER = Caller("acme", "boss", role="owner")
MEMBER = Caller("acme", "user-1", team="research", role="member")
SERVICE = Caller("acme", "bot", team="research")
ALL = (ADMIN, OWNER, MEMBER, SERVICE)
DEEDS: tuple[Deed, ...] = ("read", "create", "change", "rotate", "delete")


def key(tenant: str = "acme", **fields: Any) -> KeyRecord:
    return KeyRecord("k1", tenant, "a key", 0.0, **{"team": "research", **fields})


def allowed(thing: Organisation | Team | KeyRecord, deed: Deed) -> set[str]:
    return {caller.role for caller in ALL if refusal(caller, deed, thing) is None}


def test_organisations_belong_to_admins() -> None:
    own, other = Organisation("acme", "Acme", 0.0), Organisation("rival", "Rival", 0.0)
    for deed in DEEDS:
        assert allowed(own, deed) == ({"admin", "owner"} if deed == "read" else {"admin"})
        assert allowed(other, deed) == {"admin"}


def test_teams_belong_to_owners() -> None:
    for deed in DEEDS:
        assert allowed(Team("acme", "research", "R", 0.0), deed) == {"admin", "owner"}
        assert allowed(Team("rival", "research", "R", 0.0), deed) == {"admin"}


def test_members_have_keys_of_their_own_in_their_own_team() -> None:
    for deed in DEEDS:
        assert allowed(key(created_by="user-1"), deed) == {"admin", "owner", "member"}
        assert allowed(key(created_by="user-2"), deed) == {"admin", "owner"}
        assert allowed(key(created_by="user-1", team="legal"), deed) == {"admin", "owner"}
        assert allowed(key("rival", created_by="user-1"), deed) == {"admin"}


def test_a_key_is_its_own() -> None:
    caller = replace(MEMBER, id="k1")
    assert refusal(caller, "rotate", key(role="member")) is None


@pytest.mark.parametrize("deed", DEEDS)
def test_nobody_touches_a_key_that_outranks_them(deed: Deed) -> None:
    assert refusal(OWNER, deed, key(role="admin")) is not None
    assert refusal(MEMBER, deed, key(role="owner", created_by="user-1")) is not None
    assert refusal(ADMIN, deed, key(role="admin")) is None


@pytest.mark.parametrize(("caller", "role"), [(OWNER, "admin"), (MEMBER, "owner"), (MEMBER, "admin")])
def test_nobody_makes_a_higher_role_than_its_own(caller: Caller, role: Role) -> None:
    made = key(role=role, created_by=caller.id)
    assert refusal(caller, "create", made) is not None
    assert "role" in str(exceeding(caller, made, key(created_by=caller.id)))


@pytest.mark.parametrize("caller", [OWNER, MEMBER])
def test_nobody_gives_what_it_may_not_use_itself(caller: Caller) -> None:
    narrow = replace(caller, models=["a", "graph/b"], endpoints=["/v1/*"])
    made = key(created_by=caller.id, models=["a"], endpoints=["/v1/chat/completions"])
    assert refusal(narrow, "create", made) is None
    for more, named in (
        (replace(made, models=None), "models"),
        (replace(made, models=["a", "c"]), "'c'"),
        (replace(made, endpoints=None), "endpoints"),
        (replace(made, endpoints=["/v1/chat/completions", "/admin/*"]), "'/admin/*'"),
        (replace(made, functions=True), "functions"),
    ):
        assert named in str(refusal(narrow, "create", more))
        assert named in str(refusal(narrow, "rotate", more))
        assert named in str(exceeding(narrow, more, made))
        assert exceeding(ADMIN, more) is None


def test_members_give_no_higher_limits_and_no_later_end_than_their_own() -> None:
    own = Allowance(Limits(requests_per_minute=10), {"big": Limits(tokens_per_day=5)})
    caller = replace(MEMBER, allowance=own, expires=100.0)
    made = key(created_by="user-1", allowance=own, expires=100.0)
    assert refusal(caller, "create", made) is None
    for more, named in (
        (replace(made, allowance=Allowance(models=own.models)), "requests_per_minute may be 10"),
        (replace(made, allowance=Allowance(Limits(requests_per_minute=11), own.models)), "not 11"),
        (replace(made, allowance=Allowance(own.limits)), "limits of big: tokens_per_day"),
        (replace(made, expires=None), "expires"),
        (replace(made, expires=101.0), "expires"),
    ):
        assert named in str(refusal(caller, "create", more))
        assert named in str(exceeding(caller, more, made))
    freer = key(created_by="x")
    assert refusal(replace(OWNER, allowance=own, expires=100.0), "create", freer) is None


def test_what_a_key_could_before_is_not_held_against_who_changes_it() -> None:
    given = key(functions=True)
    assert exceeding(OWNER, replace(given, name="renamed"), given) is None
    assert exceeding(OWNER, replace(given, role="admin"), given) is not None


def test_others_are_not_seen() -> None:
    assert [sees(caller, "acme") for caller in ALL] == [True] * 4
    assert [sees(caller, "rival") for caller in ALL] == [True, False, False, False]
