"""The audit log over HTTP: in pages, verified, broken and put aside; and changes that cannot be made."""

from __future__ import annotations

import asyncio

from runtime.store.client import Store
from tests.serve_apps.api.admin.conftest import World


async def test_entries_come_in_pages_the_newest_first(world: World) -> None:
    for number in range(5):
        await world.done("owner", "POST", "teams", {"id": f"t{number}"})
    first = await world.done("owner", "GET", "audit", limit=3)
    rest = await world.done("owner", "GET", "audit", limit=3, after=first["last_id"])
    assert [entry["object"] for page in (first, rest) for entry in page["data"]] == [
        f"team/t{number}" for number in (4, 3, 2, 1, 0)
    ]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    for wrong in ("x", "-1", "1" * 20):
        assert (await world.refused("owner", "GET", "audit", after=wrong))["param"] == "after"


async def test_an_owner_sees_what_administrators_did_and_not_where_they_belong(world: World) -> None:
    await world.done("admin", "PATCH", "organisations/acme", {"limits": {"tokens_per_day": 5}})
    for who, organisation in (("owner", None), ("admin", "platform")):
        page = await world.done(who, "GET", "audit", organisation="acme")
        (entry,) = page["data"]
        assert (entry["actor_role"], entry["changed"]) == ("admin", ["allowance"])
        assert entry["actor_organisation"] == organisation
    assert (await world.done("admin", "GET", "audit", organisation="-"))["data"] == []


async def test_an_anchor_kept_elsewhere_finds_a_log_that_was_set_back(world: World, one_store: Store) -> None:
    await world.done("owner", "POST", "teams", {"id": "one"})
    await world.done("owner", "POST", "teams", {"id": "two"})
    anchor = (await world.done("owner", "GET", "audit/head"))["anchor"]
    sound = await world.done("owner", "GET", "audit/verify", anchor=anchor)
    assert (sound["sound"], sound["entries"], sound["anchor"]) == (True, 2, anchor)
    await one_store.execute("DEL", "cgh:{acme}:audit:log", "cgh:{acme}:audit:head")
    broken = await world.done("owner", "GET", "audit/verify", anchor=anchor)
    assert (broken["sound"], broken["first_bad"]) == (False, 1)
    for wrong in ("x", anchor.replace("acme", "other")):
        assert (await world.refused("owner", "GET", "audit/verify", anchor=wrong))["param"] == "anchor"


async def test_nothing_changes_while_the_log_is_broken(world: World, one_store: Store) -> None:
    await world.done("owner", "POST", "teams", {"id": "one"})
    await one_store.execute("XDEL", "cgh:{acme}:audit:log", "1-0")
    error = await world.refused("owner", "POST", "teams", {"id": "two"})
    assert (error["status"], error["code"]) == (503, "audit_log_broken")
    assert [team["id"] for team in (await world.done("owner", "GET", "teams"))["data"]] == ["lab", "one"]
    assert (await world.refused("member", "GET", "teams/lab"))["status"] == 403
    await world.done("admin", "POST", "audit/restart", {"organisation": "acme"})
    await world.done("owner", "POST", "teams", {"id": "two"})
    actions = [entry.action for entry in await world.log()]
    assert actions == ["team.create", "audit.restart"]


async def test_of_two_changes_at_once_none_undoes_the_other(world: World) -> None:
    bodies = [{"limits": {"tokens_per_day": 5}}, {"limits": {"requests_per_minute": 6}}, {"name": "L"}]
    answers = await asyncio.gather(
        *(world.ask("owner", "PATCH", "teams/lab", body) for _ in range(4) for body in bodies)
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    for answer, body in zip(answers, 4 * bodies, strict=True):
        if answer.status_code == 200:
            shown = answer.json()
            assert all(
                shown[name].items() >= value.items() if isinstance(value, dict) else shown[name] == value
                for name, value in body.items()
            )
    entries = await world.log()
    failed = [entry for entry in entries if entry.outcome == "failed"]
    conflicts = [answer for answer in answers if answer.status_code == 409]
    assert len(failed) == len(conflicts)
    assert (await world.done("owner", "GET", "audit/verify"))["sound"]


async def test_ids_that_are_taken_or_were(world: World) -> None:
    assert (await world.refused("admin", "POST", "organisations", {"id": "acme"}))["code"] == (
        "organisation_exists"
    )
    assert (await world.refused("owner", "POST", "teams", {"id": "lab"}))["code"] == "team_exists"
    await world.done("owner", "DELETE", "teams/lab")
    assert (await world.refused("owner", "POST", "teams", {"id": "lab"}))["code"] == "team_exists"
    assert (await world.refused("owner", "GET", "teams/lab"))["code"] == "team_not_found"
    assert (await world.refused("admin", "DELETE", "organisations/platform"))["code"] == "own_organisation"
    for wrong in ("", "a:b", "{acme}", "x" * 129):
        assert (await world.refused("admin", "POST", "organisations", {"id": wrong}))["status"] == 400
    barred = await world.refused("member", "GET", "keys")
    assert (barred["status"], barred["code"]) == (403, "team_deleted")
