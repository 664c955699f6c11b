"""What each role may do at the admin API, as one table; and that organisations do not see each other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve_apps.api.admin.conftest import World

NO_ORACLE = 404
ROLES = ("admin", "owner", "member", "service", "stranger")

TABLE: list[tuple[str, str, dict[str, Any] | None, tuple[int, int, int, int, int]]] = [
    # method, path, body, and the status for: admin, owner, member, service, stranger
    ("GET", "organisations/acme", None, (200, 200, 403, 403, 404)),
    ("PATCH", "organisations/acme", {"name": "A"}, (200, 403, 403, 403, 404)),
    ("PATCH", "organisations/acme", {"limits": {"tokens_per_day": 5}}, (200, 403, 403, 403, 404)),
    ("DELETE", "organisations/acme", None, (200, 403, 403, 403, 404)),
    ("POST", "organisations", {"id": "third"}, (201, 403, 403, 403, 403)),
    ("GET", "teams/lab?organisation=acme", None, (200, 200, 403, 403, 404)),
    ("POST", "teams", {"id": "new", "organisation": "acme"}, (201, 201, 403, 403, 404)),
    ("PATCH", "teams/lab?organisation=acme", {"suspended": True}, (200, 200, 403, 403, 404)),
    ("DELETE", "teams/lab?organisation=acme", None, (200, 200, 403, 403, 404)),
    ("POST", "keys", {"name": "k", "organisation": "acme"}, (201, 201, 201, 403, 404)),
    ("POST", "keys", {"name": "k", "organisation": "acme", "role": "member"}, (201, 201, 201, 403, 404)),
    ("POST", "keys", {"name": "k", "organisation": "acme", "role": "owner"}, (201, 201, 403, 403, 404)),
    ("POST", "keys", {"name": "k", "organisation": "acme", "role": "admin"}, (201, 403, 403, 403, 404)),
    ("POST", "keys", {"name": "k", "organisation": "acme", "team": "lab"}, (201, 201, 201, 403, 404)),
    ("GET", "keys/SERVICE", None, (200, 200, 403, 403, 404)),
    ("GET", "keys/MEMBER", None, (200, 200, 200, 403, 404)),
    ("PATCH", "keys/SERVICE", {"functions": True}, (200, 200, 403, 403, 404)),
    ("PATCH", "keys/MEMBER", {"role": "owner"}, (200, 200, 403, 403, 404)),
    ("PATCH", "keys/MEMBER", {"role": "admin"}, (200, 403, 403, 403, 404)),
    ("POST", "keys/MEMBER/rotate", {}, (200, 200, 200, 403, 404)),
    ("POST", "keys/SERVICE/rotate", {}, (200, 200, 403, 403, 404)),
    ("POST", "keys/SERVICE/revoke", None, (200, 200, 403, 403, 404)),
    ("GET", "keys/ADMIN", None, (200, 404, 404, 404, 404)),
    ("POST", "keys/ADMIN/revoke", None, (200, 404, 404, 404, 404)),
    ("GET", "audit?organisation=acme", None, (200, 200, 403, 403, 404)),
    ("GET", "audit/head?organisation=acme", None, (200, 200, 403, 403, 404)),
    ("GET", "audit/verify?organisation=acme", None, (200, 200, 403, 403, 404)),
    ("POST", "audit/restart", {"organisation": "acme"}, (200, 403, 403, 403, 404)),
    ("GET", "audit?organisation=-", None, (200, 400, 400, 400, 400)),
]


@pytest.mark.parametrize(("method", "path", "body", "statuses"), TABLE)
async def test_what_each_role_may_do(
    world: World, method: str, path: str, body: dict[str, Any] | None, statuses: tuple[int, ...]
) -> None:
    for who in ("member", "service", "admin"):
        path = path.replace(who.upper(), world.records[who].key_id)
    got = {}
    # Who may not goes first, for what it asks for must still be there.
    for who in sorted(ROLES, key=lambda each: (-statuses[ROLES.index(each)], -ROLES.index(each))):
        own = body if body is None or "id" not in body else {**body, "id": f"{body['id']}-{who}"}
        answer = await world.ask(who, method, path, own)
        got[who] = answer.status_code
        if answer.status_code < 300 and method == "DELETE":
            break
    expected = dict(zip(ROLES, statuses, strict=True))
    assert {who: expected[who] for who in got} == got
    assert {who for who, status in expected.items() if status >= 400} <= set(got)


async def test_what_another_organisation_owns_is_as_what_does_not_exist(world: World) -> None:
    foreign = world.records["service"].key_id
    missing = foreign[:-4] + ("0000" if foreign[-4:] != "0000" else "1111")
    for method, path in (("GET", "keys/{}"), ("POST", "keys/{}/revoke"), ("POST", "keys/{}/rotate")):
        body = {} if path.endswith("rotate") else None
        one = await world.refused("stranger", method, path.format(foreign), body)
        other = await world.refused("stranger", method, path.format(missing), body)
        assert one["status"] == other["status"] == NO_ORACLE
        assert one["message"].replace(foreign, "") == other["message"].replace(missing, "")
    for path in (
        "organisations/{}",
        "teams?organisation={}",
        "keys?organisation={}",
        "audit?organisation={}",
    ):
        one = await world.refused("stranger", "GET", path.format("acme"))
        other = await world.refused("stranger", "GET", path.format("nobody"))
        assert one["status"] == other["status"] == NO_ORACLE
        assert one["message"].replace("acme", "") == other["message"].replace("nobody", "")


async def test_lists_tell_what_the_role_may_see(world: World) -> None:
    async def names(who: str, path: str, **query: Any) -> list[str]:
        page = await world.done(who, "GET", path, **query)
        return [each.get("name") for each in page["data"]]

    assert await names("admin", "organisations") == ["Acme", "Other", "Platform"]
    assert await names("owner", "organisations") == ["Acme"]
    assert await names("member", "organisations") == []
    assert await names("owner", "teams") == ["Lab"]
    assert await names("stranger", "teams") == []
    assert await names("owner", "keys") == ["tests", "owner", "member", "service"]
    assert await names("member", "keys") == ["member"]
    assert await names("service", "keys") == []
    assert await names("stranger", "keys") == ["stranger"]
    assert await names("admin", "keys", organisation="acme", team="lab") == ["member", "service"]


async def test_refusals_are_in_the_log_of_the_callers_own_organisation(world: World) -> None:
    await world.refused("member", "PATCH", "organisations/acme", {"name": "Mine"})
    (entry,) = await world.log()
    assert (entry.outcome, entry.action, entry.object) == (
        "refused",
        "organisation.change",
        "organisation/acme",
    )
    assert (entry.actor, entry.actor_role) == (world.records["member"].key_id, "member")
    await world.refused("stranger", "PATCH", "organisations/acme", {"name": "Mine"})
    assert len(await world.log()) == 1


async def test_without_a_key_nothing_is_told(world: World) -> None:
    for path in ("organisations", "teams", "keys", "audit"):
        answer = await world.site.http.get(f"/v1/admin/{path}", headers={"authorization": "Bearer x"})
        assert answer.status_code == 401
