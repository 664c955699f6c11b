from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, func, select

from serve_apps.accounting import folding
from serve_apps.accounting.folding import fold, prune
from serve_apps.accounting.model import Share
from serve_apps.accounting.schema import calls, days, hours, open_tables
from tests.serve_apps.accounting.records import NOON, asked, encoded, record, tokens


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
    assert len(fold(tables, "acme", [b"\xc1", *encoded(record("a")), b""])) == 1
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


def test_tables_are_opened_again_as_they_were(tables: Engine, tables_url: str) -> None:
    fold(tables, "acme", encoded(record("a")))
    again = open_tables(tables_url)
    assert tokens(again) == 10
    again.dispose()
    with create_engine(tables_url).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
