"""`GET /v1/usage`."""

from __future__ import annotations

from typing import Any

import pytest

from serve_apps.accounting.book import UsageAnswer, UsageUnavailable
from serve_apps.accounting.queries import TooMuch, UsagePage, UsageQuery, UsageRow
from serve_apps.api.usage import MAX_GROUPS, query_of, seen_by
from serve_apps.gateway.callers import Caller, Role
from serve_apps.gateway.errors import BadRequest, Forbidden
from tests.serve_apps.conftest import Start

NOON = 1_800_014_400.0
MIDNIGHT = int(NOON) - 12 * 3600
DAY_S = 24 * 3600
ROW = UsageRow(
    group={"model": "small"},
    requests=2,
    cut=0,
    failed=1,
    input_tokens=10,
    cached_tokens=4,
    output_tokens=5,
    engine_seconds=0.25,
    cost_usd="0.000000100",
    mean_seconds=1.5,
    mean_first_token_seconds=None,
)


def caller(role: Role = "admin") -> Caller:
    return Caller("acme", "key-1", team="blue", role=role)


class Book:
    """Answers with what it is told to, and remembers what it was asked."""

    def __init__(self, answer: UsageAnswer | Exception) -> None:
        self.answer = answer
        self.asked: list[UsageQuery] = []

    async def ask(self, query: UsageQuery) -> UsageAnswer:
        self.asked.append(query)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_the_usual_question_is_of_the_last_days() -> None:
    query = query_of(caller(), {}, NOON)
    assert (query.start, query.end) == (MIDNIGHT - 29 * DAY_S, MIDNIGHT + DAY_S)
    assert (query.group_by, query.where, query.offset) == ([], {}, 0)


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        ({"from": "2027-01-15", "to": "2027-01-16"}, MIDNIGHT, MIDNIGHT + DAY_S),
        ({"from": "2027-01-15T12:10Z"}, int(NOON), MIDNIGHT + DAY_S),
        ({"from": "2027-01-15T12:10+02:00", "to": "2027-01-15T12:10Z"}, int(NOON) - 7200, int(NOON) + 3600),
        ({"from": str(int(NOON)), "to": str(int(NOON) + 1)}, int(NOON), int(NOON) + 3600),
    ],
)
def test_times_are_widened_to_full_hours(given: dict[str, str], start: int, end: int) -> None:
    query = query_of(caller(), given, NOON)
    assert (query.start, query.end) == (start, end)


def test_groups_and_filters() -> None:
    given = {
        "group_by": "model, tag.project,day",
        "model": "small",
        "tag.step": "1",
        "limit": "5",
        "offset": "10",
    }
    query = query_of(caller(), given, NOON)
    assert query.group_by == ["model", "tag.project", "day"]
    assert query.where == {"model": "small", "tag.step": "1"}
    assert (query.limit, query.offset) == (5, 10)


@pytest.mark.parametrize(
    ("role", "own"),
    [
        ("admin", {}),
        ("owner", {"organisation": "acme"}),
        ("member", {"organisation": "acme", "team": "blue"}),
        ("service", {"organisation": "acme", "key": "key-1"}),
    ],
)
def test_everybody_sees_their_own(role: Role, own: dict[str, str]) -> None:
    assert seen_by(caller(role)) == own
    assert query_of(caller(role), {}, NOON).where == own
    assert query_of(caller(role), own, NOON).where == own
    for name in own:
        with pytest.raises(Forbidden, match=f"its own {name}"):
            query_of(caller(role), {name: "other"}, NOON)


@pytest.mark.parametrize(
    "given",
    [
        {"form": "2027-01-15"},
        {"tag.": "x"},
        {"tag.a b": "x"},
        {"from": "yesterday"},
        {"from": "2027-01-15", "to": "2027-01-15"},
        {"from": "0", "to": "9" * 11},
        {"to": "9" * 30},
        {"group_by": "colour"},
        {"group_by": "model,model"},
        {"group_by": ",".join(f"tag.t{number}" for number in range(MAX_GROUPS + 1))},
        {"limit": "0"},
        {"limit": "1001"},
        {"offset": "-1"},
        {"model": "x" * 300},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        query_of(caller(), given, NOON)


async def test_the_answer_tells_how_far_it_goes(start: Start) -> None:
    book = Book(UsageAnswer(page=UsagePage(rows=[ROW], more=True), folded_until=NOON))
    site = await start(usage=book)
    asked = {"group_by": "model", "limit": "1", "from": "2027-01-15", "to": "2027-01-16"}
    answer = await site.http.get("/v1/usage", params=asked)
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    assert told.pop("data")[0] == {
        "group": {"model": "small"},
        "requests": 2,
        "cut": 0,
        "failed": 1,
        "input_tokens": 10,
        "cached_tokens": 4,
        "output_tokens": 5,
        "engine_seconds": 0.25,
        "cost_usd": "0.000000100",
        "mean_seconds": 1.5,
        "mean_first_token_seconds": None,
    }
    assert told == {
        "object": "list",
        "start": "2027-01-15T00:00:00Z",
        "end": "2027-01-16T00:00:00Z",
        "folded_until": "2027-01-15T12:00:00Z",
        "has_more": True,
        "next_offset": 1,
    }
    assert book.asked[0].where == {"organisation": "acme", "key": site.key.key_id}


@pytest.mark.parametrize(
    ("error", "status"), [(TooMuch(), 400), (UsageUnavailable("OperationalError"), 503), (None, 503)]
)
async def test_what_cannot_be_answered_is_told(start: Start, error: Exception | None, status: int) -> None:
    site = await start(usage=None if error is None else Book(error))
    answer = await site.http.get("/v1/usage", params={"group_by": "tag.a"})
    assert answer.status_code == status
    assert "OperationalError" not in answer.text


async def test_nobody_else_asks(start: Start) -> None:
    site = await start(usage=Book(TooMuch()))
    assert (await site.http.get("/v1/usage", headers={"authorization": "Bearer no"})).status_code == 401
    assert (await site.http.get("/v1/usage", params={"organisation": "other"})).status_code == 403
