"""What is set and what is left, at every level at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve_apps.api.admin.conftest import World
from tests.serve_apps.conftest import CHAT, eventually

CHAT_BODY = {"model": CHAT, "messages": [{"role": "user", "content": "hello"}]}


async def left(world: World, who: str = "owner", **query: Any) -> dict[tuple[str, str | None, str], Any]:
    report = await world.done(who, "GET", "quotas", **query)
    return {(each["level"], each["model"], each["name"]): each["remaining"] for each in report["data"]}


async def test_a_key_is_told_of_every_level_that_counts_for_it(world: World) -> None:
    made = await world.done("owner", "POST", "keys", {"name": "app", "team": "lab"})
    key = made["id"]
    by_model = {"limits_by_model": {CHAT: {"tokens_per_day": 1_000}}}
    await world.done("owner", "PATCH", "quotas", {"limits": {"requests_per_minute": 5}}, key=key)
    await world.done("owner", "PATCH", "quotas", by_model, key=key)
    await world.done("owner", "PATCH", "quotas", {"limits": {"tokens_per_minute": 500}}, team="lab")
    money = {"limits": {"dollars_per_month": "12.50"}}
    await world.done("admin", "PATCH", "quotas", money, organisation="acme")
    assert await left(world, key=key) == {
        ("organisation", None, "dollars_per_month"): "12.5",
        ("team", None, "tokens_per_minute"): 500,
        ("key", None, "requests_per_minute"): 5,
        ("key", CHAT, "tokens_per_day"): 1_000,
    }
    headers = {"authorization": f"Bearer {made['key']}"}
    answer = await world.site.http.post("/v1/chat/completions", json=CHAT_BODY, headers=headers)
    used = answer.json()["usage"]["total_tokens"]

    async def settled() -> bool:
        return (await left(world, key=key))["team", None, "tokens_per_minute"] == 500 - used

    await eventually(settled)
    now = await left(world, key=key)
    assert now["key", None, "requests_per_minute"] == 4
    assert now["key", CHAT, "tokens_per_day"] == 1_000 - used
    assert set(await left(world, team="lab")) == {
        ("organisation", None, "dollars_per_month"),
        ("team", None, "tokens_per_minute"),
    }
    assert set(await left(world, organisation="acme")) == {("organisation", None, "dollars_per_month")}
    await world.done("owner", "PATCH", "quotas", {"limits": {"tokens_per_minute": None}}, team="lab")
    assert set(await left(world, team="lab")) == {("organisation", None, "dollars_per_month")}


async def test_changes_of_limits_are_in_the_log(world: World) -> None:
    await world.done("owner", "PATCH", "quotas", {"limits": {"tokens_per_minute": 500}}, team="lab")
    (entry,) = await world.log()
    assert (entry.action, entry.object, entry.changed) == ("team.change", "team/lab", ["allowance"])


@pytest.mark.parametrize(
    ("who", "query", "status"),
    [
        ("owner", {"organisation": "acme"}, 403),
        ("owner", {"organisation": "other"}, 404),
        ("owner", {"team": "labb"}, 404),
        ("stranger", {"team": "lab", "organisation": "acme"}, 404),
        ("member", {"team": "lab"}, 403),
        ("service", {}, 403),
        ("owner", {"key": "0" * 32, "team": "lab"}, 400),
        ("owner", {"kee": "x"}, 400),
    ],
)
async def test_who_may_not_set_them(world: World, who: str, query: dict[str, str], status: int) -> None:
    body = {"limits": {"tokens_per_minute": 1}}
    assert (await world.refused(who, "PATCH", "quotas", body, **query))["status"] == status


async def test_a_member_sees_what_is_left_of_its_own_key(world: World) -> None:
    await world.done("owner", "PATCH", "quotas", {"limits": {"tokens_per_day": 9}}, team="lab")
    assert await left(world, "member") == {("team", None, "tokens_per_day"): 9}
