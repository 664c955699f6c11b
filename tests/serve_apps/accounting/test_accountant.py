from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from runtime.store.client import Store
from serve_apps.accounting import accountant as accountants
from serve_apps.accounting.accountant import Accountant
from serve_apps.accounting.book import UsageUnavailable
from serve_apps.accounting.folding import Entry, Folded, fold
from serve_apps.accounting.model import CallRecord, Share, encode_record
from serve_apps.accounting.queries import UsageQuery
from serve_apps.accounting.schema import open_tables
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Spent
from serve_apps.gateway.quotas import LEASE_S, TENANTS_WITH_RECORDS, Observed, QuotaLedger, records_key
from tests.serve_apps.accounting.records import DAY, NOON, asked, encoded, record, tokens
from tests.serve_apps.clock import Clock
from tests.serve_apps.conftest import eventually

FOLDER = str(Path(__file__).parents[3])


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


async def settled(store: Store, tenant: str, *records: CallRecord, noted: float = NOON) -> None:
    """As the scripts of quotas do it when calls end."""
    await store.execute("ZADD", TENANTS_WITH_RECORDS, int(noted * 1000), tenant)
    for each in records:
        await store.execute("XADD", records_key(tenant), "*", "record", encode_record(each))


async def left(store: Store, tenant: str) -> int:
    return int(await store.execute("XLEN", records_key(tenant)))


def accountant(store: Store, engine: Engine, now: float = NOON) -> Accountant:
    return Accountant(store, engine, keep_s=86400.0, clock=lambda: now)


async def test_streams_are_folded_and_trimmed(one_store: Store, tables: Engine) -> None:
    await settled(one_store, "acme", record("a"), record("b"))
    await settled(one_store, "other", record("a", tenant="other"))
    book = accountant(one_store, tables)
    assert (await book.ask(UsageQuery(start=DAY.start, end=DAY.stop))).folded_until is None
    assert await book.fold()
    assert (await left(one_store, "acme"), await left(one_store, "other"), tokens(tables)) == (0, 0, 30)
    answer = await book.ask(UsageQuery(start=DAY.start, end=DAY.stop, where={"organisation": "other"}))
    assert (answer.page.rows[0].requests, answer.folded_until) == (1, NOON)


async def test_each_call_is_heard_of_once(one_store: Store, tables: Engine) -> None:
    heard: list[str] = []
    book = Accountant(
        one_store,
        tables,
        keep_s=86400.0,
        watch=lambda changes: heard.extend(each.record.call_id for each in changes),
        clock=lambda: NOON,
    )
    await settled(one_store, "acme", record("a"), record("b"), record("a"))
    await book.fold()
    await settled(one_store, "acme", record("b"), record("c"))
    await book.fold()
    assert heard == ["a", "b", "c"]


async def test_more_than_a_page_is_folded_page_by_page(
    one_store: Store, tables: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accountants, "PAGE", 2)
    await settled(one_store, "acme", *(record(f"c{number}") for number in range(5)))
    book = accountant(one_store, tables)
    assert [await book.fold(), await book.fold(), await book.fold()] == [False, False, True]
    assert tokens(tables) == 50


async def test_entries_that_were_folded_and_not_trimmed_are_not_counted_again(
    one_store: Store, tables: Engine
) -> None:
    """As after a kill between the two, or where an older copy of the store is put back."""
    await settled(one_store, "acme", record("a"), record("b"))
    fold(tables, "acme", encoded(record("a"), record("b")))
    await accountant(one_store, tables).fold()
    assert (await left(one_store, "acme"), tokens(tables)) == (0, 20)
    await settled(one_store, "acme", record("a"))
    await accountant(one_store, tables).fold()
    assert (await left(one_store, "acme"), tokens(tables)) == (0, 20)


async def test_a_stream_that_begins_anew_with_smaller_ids_is_folded(one_store: Store, tables: Engine) -> None:
    await settled(one_store, "acme", record("a"))
    book = accountant(one_store, tables)
    await book.fold()
    await one_store.execute("DEL", records_key("acme"))
    await one_store.execute("XADD", records_key("acme"), "5-1", "record", encode_record(record("b")))
    await book.fold()
    assert (await left(one_store, "acme"), tokens(tables)) == (0, 20)


async def test_who_settles_after_all_is_counted_with_what_it_came_to(
    one_store: Store, tables: Engine, clock: Clock
) -> None:
    """From the ledger to the tables, whether they are folded between the two settlements or after them."""
    ledger = QuotaLedger(one_store, clock=clock)
    book = Accountant(one_store, tables, keep_s=86400.0, clock=clock)
    seen = record("late", end="expired", shares=[Share("small", input_tokens=60, output_tokens=9)])
    spent = record("late", shares=[Share("small", input_tokens=60, output_tokens=30)])
    less = record("less", shares=[Share("small", input_tokens=5, output_tokens=1)])
    for call, at_once in ((spent, False), (less, True)):
        call_id = call.call_id
        caller = Caller("acme", "key-1")
        reservation = await ledger.reserve(caller, Demand("small", 60, 40), reservation_id=call_id)
        told = msgspec.structs.replace(seen, call_id=call_id)
        await ledger.renew("acme", [Observed(call_id, Spent(69), encode_record(told))])
        clock.now += LEASE_S + 1
        await ledger.settle_due()
        if not at_once:
            await book.fold()
        tokens_spent = sum(share.input_tokens + share.output_tokens for share in call.shares)
        assert await ledger.settle(reservation, Spent(tokens_spent), encode_record(call))
        await book.fold()
        assert tokens(tables) == (await ledger.totals("acme", "key-1")).tokens
    assert tokens(tables) == 90 + 6
    [row] = asked(tables)
    assert (row.requests, row.failed, await left(one_store, "acme")) == (2, 0, 0)


async def test_tenants_whose_records_the_store_has_forgotten_are_forgotten(
    one_store: Store, tables: Engine
) -> None:
    await settled(one_store, "gone", noted=NOON - accountants.FORGET_S - 1)
    await settled(one_store, "quiet", record("a"), noted=NOON - accountants.FORGET_S + 60)
    await accountant(one_store, tables).fold()
    assert await one_store.execute("ZRANGE", TENANTS_WITH_RECORDS, 0, -1) == [b"quiet"]


async def test_the_longer_it_looks_the_less_often_it_does(
    one_store: Store, tables: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, pauses = iter([0.0, 0.1, 5.0]), []

    async def fold_nothing(self: Accountant) -> bool:
        self._looked_s += next(looks)
        return True

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(Accountant, "fold", fold_nothing)
    monkeypatch.setattr(accountants.asyncio, "sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        await accountant(one_store, tables).run()
    assert pauses == [accountants.PAUSE_S, pytest.approx(4.9), accountants.MAX_PAUSE_S]


async def test_those_who_have_not_called_for_long_are_looked_at_now_and_then(
    one_store: Store, tables: Engine
) -> None:
    now = NOON
    book = Accountant(one_store, tables, keep_s=86400.0, clock=lambda: now)
    await settled(one_store, "acme", noted=NOON - 7200)
    await book.fold()
    await settled(one_store, "acme", record("a"), noted=NOON - 7200)
    await book.fold()
    assert await left(one_store, "acme") == 1
    now += accountants.RECENT_S
    await book.fold()
    assert await left(one_store, "acme") == 0


async def test_it_folds_by_itself_and_waits_for_the_database(
    one_store: Store, tables: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True

    def folded(engine: Engine, tenant: str, entries: list[Entry]) -> list[Folded]:
        if broken:
            raise OperationalError("insert", None, Exception("disk full"))
        return fold(engine, tenant, entries)

    monkeypatch.setattr(accountants, "PAUSE_S", 0.01)
    monkeypatch.setattr(accountants, "fold", folded)
    await settled(one_store, "acme", record("a"))
    book = accountant(one_store, tables)
    working = asyncio.create_task(book.run())
    await asyncio.sleep(0.05)
    assert (await left(one_store, "acme"), working.done()) == (1, False)
    broken = False

    async def empty() -> bool:
        return await left(one_store, "acme") == 0

    await eventually(empty)
    assert tokens(tables) == 10
    working.cancel()


async def test_a_database_that_is_out_is_told(one_store: Store, tables: Engine) -> None:
    book = accountant(one_store, tables)
    with tables.begin() as connection:
        connection.exec_driver_sql("DROP TABLE usage_days")
    with pytest.raises(UsageUnavailable):
        await book.ask(UsageQuery(start=DAY.start, end=DAY.stop))


FOLDING = """
import asyncio, sys
from runtime.store.client import Store
from serve_apps.accounting import accountant
from serve_apps.accounting.schema import open_tables
accountant.PAGE = 3
accountant.PAUSE_S = 0.0
async def main(store_url, tables_url):
    store = Store.connect(store_url, timeout_s=5)
    await accountant.Accountant(store, open_tables(tables_url), keep_s=86400.0 * 10**6).run()
asyncio.run(main(*sys.argv[1:]))
"""


def started(store_url: str, tables_url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FOLDING, store_url, tables_url], cwd=FOLDER)


@pytest.mark.parametrize("tables_url", ["sqlite"], indirect=True)
async def test_killed_at_any_point_it_counts_every_call_once(
    one_store: Store, valkey_url: str, tables_url: str, tables: Engine
) -> None:
    """A process that folds three calls at a time is killed again and again while calls come in."""
    made = 0
    for _ in range(3):
        process = started(valkey_url, tables_url)
        try:
            before, until = tokens(tables), time.monotonic() + 60
            while tokens(tables) < before + 60 and time.monotonic() < until:
                await settled(
                    one_store, "acme", *(record(f"c{made + n}") for n in range(5)), noted=time.time()
                )
                made += 5
            await settled(one_store, "acme", *(record(f"c{made + n}") for n in range(20)), noted=time.time())
            made += 20
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert tokens(tables) >= before + 60
    again = open_tables(tables_url)
    book = Accountant(one_store, again, keep_s=86400.0 * 10**6)
    while not await book.fold():
        pass
    again.dispose()
    assert await left(one_store, "acme") == 0
    [row] = asked(tables)
    assert (row.requests, row.input_tokens, row.output_tokens) == (made, 6 * made, 4 * made)
