"""Keys over the admin API: shown once, changed, rotated, revoked, and every step of it in the log."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from runtime.store.client import Store
from tests.serve_apps.api.admin.conftest import World
from tests.serve_apps.conftest import CHAT

CHAT_BODY = {"model": CHAT, "messages": [{"role": "user", "content": "hello"}]}


async def status_of(world: World, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    answer = await world.site.http.post("/v1/chat/completions", json=CHAT_BODY, headers=headers)
    return answer.status_code


async def test_a_key_is_made_shown_once_and_works(world: World) -> None:
    until = time.time() + 3600
    body = {
        "name": "app",
        "team": "lab",
        "role": "service",
        "expires": until,
        "models": [CHAT, "graph/rag"],
        "endpoints": ["/v1/chat/*"],
        "functions": True,
        "limits": {"requests_per_minute": 5, "dollars_per_month": "12.50"},
        "limits_by_model": {CHAT: {"tokens_per_day": 1000}},
    }
    made = await world.done("owner", "POST", "keys", body)
    assert await status_of(world, made["key"]) == 200
    seen = await world.done("owner", "GET", f"keys/{made['id']}")
    assert "key" not in seen
    assert {name: seen[name] for name in body if "limits" not in name} == {
        name: value for name, value in body.items() if "limits" not in name
    }
    assert seen["limits"] == {
        "requests_per_minute": 5,
        "tokens_per_minute": None,
        "concurrent_requests": None,
        "tokens_per_day": None,
        "dollars_per_month": "12.5",
    }
    assert seen["limits_by_model"][CHAT]["tokens_per_day"] == 1000
    assert (seen["organisation"], seen["state"]) == ("acme", "active")
    assert seen["created_by"] == world.records["owner"].key_id
    page = await world.done("owner", "GET", "keys", limit=100)
    assert made["key"] not in msgspec.json.encode(page).decode()


async def test_every_change_of_a_key_is_in_the_log(world: World, one_store: Store) -> None:
    made = await world.done("owner", "POST", "keys", {"name": "app"})
    path = f"keys/{made['id']}"
    await world.done("owner", "PATCH", path, {"name": "apps", "models": [CHAT]})
    await world.done("owner", "PATCH", path, {"name": "apps"})  # as it is: nothing is done
    await world.done("owner", "POST", f"{path}/rotate", {"overlap_seconds": 60})
    await world.done("owner", "POST", f"{path}/revoke")
    await world.done("owner", "POST", f"{path}/revoke")  # again: it is so already
    entries = (await world.log())[::-1]
    assert [entry.action for entry in entries] == ["key.create", "key.change", "key.rotate", "key.revoke"]
    assert [entry.changed for entry in entries] == [
        [],
        ["models", "name"],
        ["old_secret_until"],
        ["revoked"],
    ]
    assert {(each.object, each.actor) for each in entries} == {
        (f"key/{made['id']}", world.records["owner"].key_id)
    }
    assert entries[0].before is None
    assert entries[0].after == entries[1].before
    assert (await world.done("owner", "GET", "audit/verify"))["sound"]
    kept = repr(await one_store.execute("XRANGE", "cgh:{acme}:audit:log", "-", "+"))
    assert made["key"].split("_")[2] not in kept
    assert CHAT not in kept


async def test_a_change_is_seen_in_what_the_key_may(world: World) -> None:
    made = await world.done("owner", "POST", "keys", {"name": "app"})
    path = f"keys/{made['id']}"
    await world.done("owner", "PATCH", path, {"models": ["graph/rag"]})
    assert await status_of(world, made["key"]) == 403
    await world.done("owner", "PATCH", path, {"models": None})
    assert await status_of(world, made["key"]) == 200


async def test_an_old_secret_goes_on_as_long_as_it_was_said(world: World) -> None:
    made = await world.done("owner", "POST", "keys", {"name": "app"})
    path = f"keys/{made['id']}/rotate"
    second = await world.done("owner", "POST", path, {"overlap_seconds": 3600})
    assert second["id"] == made["id"]
    assert second["old_secret_until"] > time.time() + 3000
    assert [await status_of(world, each["key"]) for each in (made, second)] == [200, 200]
    third = await world.done("owner", "POST", path, {})
    assert third["old_secret_until"] is None
    assert [await status_of(world, each["key"]) for each in (made, second, third)] == [401, 401, 200]


async def test_a_revoked_key_is_refused_and_stays_so(world: World) -> None:
    made = await world.done("owner", "POST", "keys", {"name": "app"})
    path = f"keys/{made['id']}"
    assert (await world.done("owner", "POST", f"{path}/revoke"))["state"] == "revoked"
    assert await status_of(world, made["key"]) == 401
    assert (await world.refused("owner", "POST", f"{path}/rotate", {}))["code"] == "key_revoked"
    assert (await world.done("owner", "GET", path))["state"] == "revoked"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "k", "rol": "member"}, "rol"),
        ({"name": "k", "role": "root"}, "role"),
        ({"name": "k", "team": "labb"}, "team"),
        ({"name": "k", "expires": 5}, "expires"),
        ({"name": "k", "expires": "soon"}, "expires"),
        ({"name": "k", "models": ["x"] * 101}, "models"),
        ({"name": "k", "endpoints": ["chat"]}, "endpoints"),
        ({"name": "k", "limits": {"rpm": 5}}, "limits.rpm"),
        ({"name": "k", "limits": {"dollars_per_month": "-5"}}, "limits.dollars_per_month"),
    ],
)
async def test_a_wrong_body_is_told_what_is_wrong(world: World, body: dict[str, Any], param: str) -> None:
    error = await world.refused("owner", "POST", "keys", body)
    assert (error["status"], error["param"]) == (400, param)
    assert await world.log() == []


async def test_nobody_gives_more_than_it_has(world: World) -> None:
    body = {"name": "narrow", "role": "owner", "models": [CHAT], "endpoints": ["/v1/admin/*"]}
    world.tokens["narrow"] = (await world.done("owner", "POST", "keys", body))["key"]
    wide = await world.done("owner", "POST", "keys", {"name": "wide", "functions": True})
    for method, path, body in (
        ("POST", "keys", {"name": "more"}),
        ("POST", "keys", {"name": "more", "models": [CHAT], "endpoints": ["*"]}),
        ("POST", f"keys/{wide['id']}/rotate", {}),
        ("PATCH", f"keys/{wide['id']}", {"name": "mine"}),
    ):
        assert (await world.refused("narrow", method, path, body))["code"] == "role_not_allowed"
    fitting = {"name": "fits", "models": [CHAT], "endpoints": ["/v1/admin/keys"]}
    await world.done("narrow", "POST", "keys", fitting)
    await world.done("narrow", "POST", f"keys/{wide['id']}/revoke")


async def test_a_list_comes_in_pages(world: World) -> None:
    made = [await world.done("stranger", "POST", "keys", {"name": f"k{number}"}) for number in range(5)]
    ids = [world.records["stranger"].key_id, *(each["id"] for each in made)]
    seen: list[str] = []
    after: dict[str, str] = {}
    for more in (True, True, False):
        page = await world.done("stranger", "GET", "keys", limit=2, **after)
        seen += [each["id"] for each in page["data"]]
        assert page["has_more"] == more
        after = {"after": page["last_id"]}
    assert seen == ids
    error = await world.refused("stranger", "GET", "keys", limt=2)
    assert (error["status"], error["param"]) == (400, "limt")
    assert "'limit'" in error["message"]
    assert (await world.refused("stranger", "GET", "keys", limit=0))["param"] == "limit"


async def test_a_key_that_does_not_exist(world: World) -> None:
    for wrong, status in (("0" * 32, 404), ("a:b", 400), ("x" * 200, 400)):
        assert (await world.refused("admin", "GET", f"keys/{wrong}"))["status"] == status
