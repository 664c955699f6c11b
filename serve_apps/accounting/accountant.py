"""Reads the streams of records out of the store into the tables, and answers questions about them.

    settled ─► stream of the tenant ─► fold (a transaction) ─► trim the stream

Nothing waits for this. Where it is killed between the fold and the trim, it finds the same entries again, and
they are in the tables already; where the database is out, the streams wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Final

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from runtime.store.client import Store
from runtime.store.errors import CommandFailed, StoreError
from serve_apps.accounting.book import UsageAnswer, UsageUnavailable
from serve_apps.accounting.folding import Entry, Folded, fold, prune
from serve_apps.accounting.queries import UsageQuery, ask
from serve_apps.gateway.quotas import TENANTS_WITH_RECORDS, records_key

PAUSE_S: Final = 1.0
"""Between two looks at the streams, at least."""
REST: Final = 49
"""How many times as long as a look took is rested after it: looking is at most a fiftieth of all time."""
MAX_PAUSE_S: Final = 15.0
PAGE: Final = 500
"""Records that are folded in one transaction."""
RECENT_S: Final = 900.0
"""Tenants that made a call within this time are looked at each time, all others once in it: what a gateway
that died has left open is settled within minutes."""
FORGET_S: Final = 36 * 24 * 3600.0
"""Tenants that made no call for so long are forgotten: the store keeps open calls and records for less."""
Watch = Callable[[Iterable[Folded]], None]
PRUNE_S: Final = 3600.0

_log = structlog.get_logger(__name__)


class Accountant:
    """A `UsageBook`, for one event loop."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        *,
        keep_s: float,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`keep_s`: how long single calls are kept. `watch` hears of each call once, short of being killed.
        `clock` gives Unix seconds."""
        self._store = store
        self._engine = engine
        self._keep_s = keep_s
        self._watch = watch
        self._clock = clock
        self._looked_at_all = self._pruned = float("-inf")
        self._looked_s = 0.0
        """What the looks since the last pause have taken."""
        self._folded_until: float | None = None
        self._failing = False

    async def run(self) -> None:
        """Folds until it is cancelled. Outages of store and database are waited for."""
        while True:
            try:
                while not await self.fold():
                    pass
                self._say(failing=None)
            except (StoreError, SQLAlchemyError) as error:
                self._say(failing=type(error).__name__)
            pause_s = max(PAUSE_S, min(REST * self._looked_s, MAX_PAUSE_S))
            self._looked_s = 0.0
            await asyncio.sleep(pause_s)

    async def fold(self) -> bool:
        """Folds a page of each tenant's records. Whether that were all.

        Raises `StoreError`, `SQLAlchemyError`; what was folded by then stays folded.
        """
        began = self._clock()
        everybody = not 0 <= began - self._looked_at_all < RECENT_S
        since = "-inf" if everybody else int((began - RECENT_S) * 1000)
        tenants = await self._store.execute("ZRANGEBYSCORE", TENANTS_WITH_RECORDS, since, "+inf")
        drained = True
        for at in range(0, len(tenants), PAGE):
            drained &= await self._fold_some([tenant.decode() for tenant in tenants[at : at + PAGE]])
        if drained:
            self._folded_until = began
            if everybody:
                await self._store.execute(
                    "ZREMRANGEBYSCORE", TENANTS_WITH_RECORDS, "-inf", int((began - FORGET_S) * 1000)
                )
                self._looked_at_all = began
            if not 0 <= began - self._pruned < PRUNE_S:
                await asyncio.to_thread(prune, self._engine, began, self._keep_s)
                self._pruned = began
        return drained

    async def ask(self, query: UsageQuery) -> UsageAnswer:
        try:
            page = await asyncio.to_thread(ask, self._engine, query)
        except SQLAlchemyError as error:
            raise UsageUnavailable(type(error).__name__) from error
        return UsageAnswer(page=page, folded_until=self._folded_until)

    async def _fold_some(self, tenants: list[str]) -> bool:
        """As `fold`, of some tenants, in one round trip and another for those that have records."""
        began = perf_counter()
        pages = await self._store.execute_many(
            [("XRANGE", records_key(tenant), "-", "+", "COUNT", PAGE) for tenant in tenants]
        )
        self._looked_s += perf_counter() - began
        trims: list[tuple[str | bytes | int, ...]] = []
        drained = True
        for tenant, page in zip(tenants, pages, strict=True):
            if isinstance(page, CommandFailed):
                raise page
            if page:
                entries = [_entry(fields) for _, fields in page]
                changed = await asyncio.to_thread(fold, self._engine, tenant, entries)
                if self._watch is not None:
                    self._watch(changed)
                trims.append(("XTRIM", records_key(tenant), "MINID", _behind(page[-1][0])))
                drained &= len(page) < PAGE
        if trims:
            await self._store.execute_many(trims)
        return drained

    def _say(self, failing: str | None) -> None:
        """One line of the log when it stops working, and one when it works again."""
        if (failing is not None) != self._failing:
            self._failing = failing is not None
            if failing is not None:
                _log.warning("usage_not_folded", error=failing)
            else:
                _log.info("usage_folded_again")


def _entry(fields: list[Any]) -> Entry:
    """Of a list of names and values."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return Entry(named.get(b"record", b""), named.get(b"before", b""))


def _behind(entry_id: bytes) -> str:
    """The least id that is greater."""
    milliseconds, _, sequence = entry_id.decode().partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"
