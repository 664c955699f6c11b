from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from serve_apps.accounting import folding
from serve_apps.accounting.folding import Entry, fold, prune
from serve_apps.accounting.model import CallRecord, Share
from serve_apps.accounting.schema import calls, days, hours, open_tables
from tests.serve_apps.accounting.records import NOON, asked, encoded, late, record, tokens


def rows_in(engine: Engine, table: object) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)  # type: ignore[arg-type]


def test_calls_are_kept_and_summed(tables: Engine) -> None:
    assert (
        len(
            fold(
                tables,
                "acme",
                encoded(record("a"), record("b", end="cut"), record("c", end="failed", shares=[])),
            )
        )
        == 3
    )
    [row] = asked(tables)
    assert (row.requests, row.cut, row.failed) == (3, 1, 1)
    assert (row.input_tokens, row.output_tokens, row.engine_seconds) == (12, 8, 2.0)
    assert row.cost_usd == "0.000000200"
    with tables.connect() as connection:
        kept = connection.execute(select(calls).where(calls.c.call_id == "b")).one()
    assert (kept.tenant, kept.ended, kept.milliseconds, kept.at_ms) == ("acme", "cut", 500, int(NOON * 1000))


def test_a_call_that_is_read_again_is_not_counted_again(tables: Engine) -> None:
    fold(tables, "acme", encoded(record("a"), record("b")))
    assert len(fold(tables, "acme", encoded(record("b"), record("a"), record("c"), record("c")))) == 1
    assert tokens(tables) == 30


def test_equal_ids_of_two_organisations_are_two_calls(tables: Engine) -> None:
    fold(tables, "acme", encoded(record("a")))
    fold(tables, "other", encoded(record("a", tenant="other")))
    assert [(row.group["organisation"], row.requests) for row in asked(tables, "organisation")] == [
        ("acme", 1),
        ("other", 1),
    ]


def test_a_record_stays_with_the_organisation_whose_stream_it_is_in(tables: Engine) -> None:
    fold(tables, "acme", encoded(record("a", tenant="other")))
    assert [row.group for row in asked(tables, "organisation")] == [{"organisation": "acme"}]


def test_what_is_no_record_harms_no_other(tables: Engine) -> None:
    assert len(fold(tables, "acme", [Entry(b"\xc1"), *encoded(record("a")), Entry(b"")])) == 1
    assert len(fold(tables, "acme", [])) == 0


def test_a_fold_that_breaks_has_added_nothing(tables: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(folding, "_digest", broken)
        with pytest.raises(RuntimeError, match="killed"):
            fold(tables, "acme", encoded(record("a")))
    assert rows_in(tables, calls) == 0
    assert len(fold(tables, "acme", encoded(record("a")))) == 1
    assert tokens(tables) == 10


def test_graphs_count_once_as_requests_and_by_node_as_tokens(tables: Engine) -> None:
    shares = [Share("embed", "search.each", 5), Share("small", "answer", 7, output_tokens=3, nanodollars=9)]
    fold(tables, "acme", encoded(record("a", model="graph/rag", shares=shares), record("b")))
    rows = {
        (row.group["model"], row.group["node"]): row
        for row in asked(tables, "model", "node", where={"graph": "rag"})
    }
    assert {at: row.requests for at, row in rows.items()} == {
        ("", ""): 1,
        ("embed", "search.each"): 0,
        ("small", "answer"): 0,
    }
    assert rows["small", "answer"].cost_usd == "0.000000009"
    [whole] = asked(tables, where={"graph": "rag"})
    assert (whole.requests, whole.input_tokens, whole.output_tokens) == (1, 12, 3)


def test_clocks_that_step_put_calls_where_they_say_that_they_were(tables: Engine) -> None:
    fold(
        tables,
        "acme",
        encoded(record("late", at=NOON + 3600), record("early", at=NOON - 3600), record("now")),
    )
    assert [row.group["hour"] for row in asked(tables, "hour")] == [
        "2027-01-15T11:00Z",
        "2027-01-15T12:00Z",
        "2027-01-15T13:00Z",
    ]


def test_sets_of_tags_are_bounded(tables: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "MAX_TAG_SETS", 3)
    for number in range(6):
        fold(tables, "acme", encoded(record(f"c{number}", tags={"request": str(number)})))
    fold(tables, "acme", encoded(record("again", tags={"request": "0"})))
    assert rows_in(tables, hours) == rows_in(tables, days) == 4
    assert {row.group["tag.request"]: row.requests for row in asked(tables, "tag.request")} == {
        "0": 2,
        "1": 1,
        "2": 1,
        "": 3,
    }


def test_old_calls_are_forgotten_and_their_sums_are_not(tables: Engine) -> None:
    fold(tables, "acme", encoded(record("old", at=NOON - 100), record("new")))
    prune(tables, NOON, keep_s=50.0)
    assert (rows_in(tables, calls), rows_in(tables, hours), tokens(tables)) == (1, 2, 20)
    prune(tables, NOON + 100 * 86400, keep_s=10**9)
    assert (rows_in(tables, hours), rows_in(tables, days)) == (0, 1)


IDS = st.lists(st.integers(0, 30), max_size=20)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(IDS, max_size=6))
def test_however_often_and_in_whatever_order_calls_are_read_each_counts_once(
    batches: list[list[int]],
) -> None:
    engine = open_tables("sqlite://")
    for batch in batches:
        fold(engine, "acme", encoded(*(record(f"c{number}") for number in batch)))
    assert tokens(engine) == 10 * len({number for batch in batches for number in batch})
    engine.dispose()


def expired(call_id: str, **fields: Any) -> CallRecord:
    """Of a call whose gateway could not be heard: four tokens had been seen of it."""
    return record(call_id, end="expired", shares=[Share("small", input_tokens=3, output_tokens=1)], **fields)


def test_a_call_that_settles_late_is_counted_with_what_it_came_to(tables: Engine) -> None:
    seen, spent = expired("a"), record("a", first_token_s=0.25)
    fold(tables, "acme", encoded(seen, record("b")))
    assert fold(tables, "acme", [late(spent, seen)]) == [(spent, seen)]
    assert fold(tables, "acme", [late(spent, seen), *encoded(seen)]) == []
    [row] = asked(tables)
    assert (row.requests, row.failed, row.input_tokens, row.output_tokens) == (2, 0, 12, 8)
    assert (row.cost_usd, row.mean_first_token_seconds) == ("0.000000200", 0.25)
    with tables.connect() as connection:
        ended = connection.scalars(select(calls.c.ended).order_by(calls.c.call_id)).all()
    assert ended == ["done", "done"]


def test_a_late_settlement_moves_a_call_to_when_it_ended(tables: Engine) -> None:
    seen = expired("a", at=NOON - 60, model="graph/rag", tags={"project": "x"})
    spent = record("a", at=NOON + 60, model="graph/rag", tags={"project": "x"})
    fold(tables, "acme", encoded(seen))
    fold(tables, "acme", [late(spent, seen)])
    assert {row.group["hour"]: (row.requests, row.output_tokens) for row in asked(tables, "hour")} == {
        "2027-01-15T11:00Z": (0, 0),
        "2027-01-15T12:00Z": (1, 4),
    }


def test_only_what_is_there_is_replaced(tables: Engine) -> None:
    fold(tables, "acme", encoded(record("a")))
    other = expired("a")
    assert fold(tables, "acme", [late(record("a", end="cut", shares=[]), other)]) == []
    assert fold(tables, "other", [late(record("a"), other)]) != []
    assert tokens(tables) == 20


def test_a_late_settlement_is_taken_from_where_its_tags_were_summed(
    tables: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "MAX_TAG_SETS", 2)
    fold(tables, "acme", encoded(record("plain")))
    seen = [expired(f"c{number}", tags={"request": str(number)}) for number in range(4)]
    fold(tables, "acme", encoded(*seen))
    fold(tables, "acme", [late(record(each.call_id, tags=each.tags), each) for each in seen])
    rows = asked(tables, "tag.request")
    assert sum(row.requests for row in rows) == 5
    assert all(row.input_tokens + row.output_tokens == 10 * row.requests for row in rows)


TOLD = st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12)
"""Entries that are read: the number of a call, and whether it is what it came to in the end."""


@settings(max_examples=60, deadline=None)
@given(st.lists(TOLD, max_size=6))
def test_sums_are_those_of_the_calls_in_whatever_order_they_are_told(
    batches: list[list[tuple[int, bool]]],
) -> None:
    engine = open_tables("sqlite://")
    for batch in batches:
        fold(engine, "acme", [entry_of(number, ended) for number, ended in batch])
    told = {entry for batch in batches for entry in batch}
    ended = {number for number, end in told if end}
    only_seen = {number for number, _ in told} - ended
    with engine.connect() as connection:
        kept = {row.call_id: row.ended for row in connection.execute(select(calls.c.call_id, calls.c.ended))}
    assert kept == {f"c{n}": "done" for n in ended} | {f"c{n}": "expired" for n in only_seen}
    rows = asked(engine, "hour", "model")
    assert sum(row.requests for row in rows) == len(kept)
    assert sum(row.failed for row in rows) == len(only_seen)
    assert sum(row.input_tokens + row.output_tokens for row in rows) == 10 * len(ended) + 4 * len(only_seen)
    engine.dispose()


def entry_of(number: int, ended: bool) -> Entry:
    """Some calls end in another hour than that in which they had expired."""
    seen = expired(f"c{number}", at=NOON - number * 600)
    return late(record(f"c{number}"), seen) if ended else encoded(seen)[0]


def test_several_who_fold_the_same_at_once_count_each_call_once(tables: Engine) -> None:
    """As while a process that folds is replaced. Who is thrown out begins again, as the accountant does."""
    seen = [expired(f"c{number}") for number in range(20)]
    entries = [*encoded(*seen), *(late(record(each.call_id), each) for each in seen[:10])]

    def fold_all() -> int:
        changed, rest = 0, list(range(0, len(entries), 6))
        while rest:
            with suppress(SQLAlchemyError):
                changed += len(fold(tables, "acme", entries[rest[0] : rest[0] + 6]))
                rest.pop(0)
        return changed

    with ThreadPoolExecutor(4) as pool:
        changed = sum(each.result(timeout=60) for each in [pool.submit(fold_all) for _ in range(4)])
    assert 20 <= changed <= 30
    assert (asked(tables)[0].requests, tokens(tables)) == (20, 10 * 10 + 10 * 4)


def test_tables_are_opened_again_as_they_were(tables: Engine, tables_url: str) -> None:
    fold(tables, "acme", encoded(record("a")))
    again = open_tables(tables_url)
    assert tokens(again) == 10
    with again.connect() as connection:
        if again.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    again.dispose()
