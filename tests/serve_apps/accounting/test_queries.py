from __future__ import annotations

import pytest
from sqlalchemy import Engine

from serve_apps.accounting import queries
from serve_apps.accounting.folding import fold
from serve_apps.accounting.model import Share
from serve_apps.accounting.queries import TooMuch, UsageQuery, dollars, table_of, whole_hours
from serve_apps.accounting.schema import days, hours
from tests.serve_apps.accounting.records import DAY, NOON, asked, encoded, record


@pytest.fixture
def used(tables: Engine) -> Engine:
    """Three keys of two teams of `acme`, one of which sets tags, and one key of `other`."""
    dear = [Share("large", input_tokens=100, cached_tokens=40, output_tokens=9, nanodollars=7_000)]
    fold(
        tables,
        "acme",
        encoded(
            record("a", tags={"project": "Search", "step": "1"}, first_token_s=0.25),
            record("b", tags={"project": "search"}, first_token_s=0.75),
            record("c", caller="key-2", model="large", shares=dear, at=NOON + 3700),
            record("d", team="blue", caller="key-3", end="refused", shares=[]),
        ),
    )
    fold(tables, "other", encoded(record("a", tenant="other", caller="key-9")))
    return tables


def test_sums_of_nothing_are_none(tables: Engine) -> None:
    assert asked(tables) == []
    assert asked(tables, "key") == []


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (["organisation"], {("acme",): 4, ("other",): 1}),
        (["team"], {("blue",): 1, ("default",): 4}),
        (["key"], {("key-1",): 2, ("key-2",): 1, ("key-3",): 1, ("key-9",): 1}),
        (["model", "hour"], {("small", "2027-01-15T12:00Z"): 4, ("large", "2027-01-15T13:00Z"): 1}),
        (["day"], {("2027-01-15",): 5}),
        (["tag.project"], {("",): 3, ("Search",): 1, ("search",): 1}),
        (
            ["key", "tag.project"],
            {
                ("key-1", "Search"): 1,
                ("key-1", "search"): 1,
                ("key-2", ""): 1,
                ("key-3", ""): 1,
                ("key-9", ""): 1,
            },
        ),
    ],
)
def test_groups(used: Engine, groups: list[str], expected: dict[tuple[str, ...], int]) -> None:
    rows = asked(used, *groups)
    assert {tuple(row.group[name] for name in groups): row.requests for row in rows} == expected


def test_the_order_of_rows_is_that_of_their_groups(used: Engine) -> None:
    shown = [list(row.group.values()) for row in asked(used, "team", "key")]
    assert shown == sorted(shown)


@pytest.mark.parametrize(
    ("where", "requests"),
    [
        ({"organisation": "acme"}, 4),
        ({"organisation": "acme", "team": "blue"}, 1),
        ({"model": "large"}, 1),
        ({"tag.project": "search"}, 1),
        ({"tag.project": "search", "key": "key-2"}, 0),
        ({"tag.step": "1"}, 1),
        ({"tag.project": "se%"}, 0),
    ],
)
def test_filters(used: Engine, where: dict[str, str], requests: int) -> None:
    assert sum(row.requests for row in asked(used, where=where)) == requests


def test_a_row_tells_all_there_is(used: Engine) -> None:
    [large] = asked(used, where={"model": "large"})
    assert (large.input_tokens, large.cached_tokens, large.output_tokens) == (100, 40, 9)
    assert (large.cost_usd, large.mean_seconds, large.mean_first_token_seconds) == ("0.000007000", 0.5, None)
    [small] = asked(used, where={"organisation": "acme", "key": "key-1"})
    assert small.mean_first_token_seconds == 0.5
    [refused] = asked(used, where={"team": "blue"})
    assert (refused.failed, refused.input_tokens) == (1, 0)


@pytest.mark.parametrize("groups", [["key"], ["tag.project", "key"]])
def test_pages_hold_every_row_once(used: Engine, groups: list[str]) -> None:
    whole = asked(used, *groups)
    pages = [
        queries.ask(used, UsageQuery(start=DAY.start, end=DAY.stop, group_by=groups, limit=2, offset=at))
        for at in (0, 2, 4, 6)
    ]
    assert [row for page in pages for row in page.rows] == whole
    assert [page.more for page in pages] == [at + 2 < len(whole) for at in (0, 2, 4, 6)]


def test_hours_and_days_hold_the_same(used: Engine) -> None:
    by_day = UsageQuery(start=DAY.start, end=DAY.stop, group_by=["key", "day"])
    by_hour = UsageQuery(start=DAY.start, end=DAY.stop - 3600, group_by=["key", "day"])
    assert (table_of(by_day), table_of(by_hour)) == (days, hours)
    assert queries.ask(used, by_day) == queries.ask(used, by_hour)


def test_a_part_of_a_day_is_asked_by_the_hour(used: Engine) -> None:
    rows = asked(used, start=int(NOON) + 3600, end=int(NOON) + 7200)
    assert [row.requests for row in rows] == [1]


def test_a_question_about_too_many_tags_is_refused(used: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_SCANNED", 2)
    with pytest.raises(TooMuch):
        asked(used, "tag.project")


def test_money_is_told_exactly() -> None:
    assert [dollars(0), dollars(1), dollars(12_345_678_901)] == ["0.000000000", "0.000000001", "12.345678901"]


def test_times_are_widened_to_full_hours() -> None:
    assert whole_hours(NOON + 1, NOON + 3601) == (int(NOON), int(NOON) + 7200)
    assert whole_hours(NOON, NOON + 3600) == (int(NOON), int(NOON) + 3600)
