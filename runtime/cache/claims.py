"""Results that one of several runners makes for all of them: claims in the store.

    runner A ─► looks: nothing ─► has claimed it ─► makes it, renewing ─► keeps it; the claim ends with that
    runner B ────► looks: A makes it ─► looks again and again ──────────────► has it
    A is gone ─► its claim lapses ─► the next look of B claims it

A claim is a lease (Gray and Cheriton, "Leases", SOSP 1989) on one result, held by a word that nobody else
has. The word fences: what a runner makes whose claim has become another's is its own, and not kept. Whoever
looks learns in the same round trip whether there is a result, whether somebody makes it, or that it is to do
so itself.

Nobody waits for long: neither for what is much less urgent, nor beyond half of the time that is left, nor
while the store is out, nor with too many others. It makes the result itself then, as without claims.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from runtime.cache.flights import MUCH_MORE_URGENT
from runtime.cache.results import Result, Results

LEASE_S = 3.0
"""How long others wait for a runner that says nothing."""
RENEWALS = 3
"""In the time of a lease."""
MAX_CLAIMS = 256
"""That one runner holds. What it makes beyond these it makes for itself."""
MAX_WAITS = 128
"""For other runners, of one runner at a time."""
PATIENCE = 0.5
"""Share of the time left that another runner is waited for: enough is left to make it oneself."""

FIRST_PAUSE_S = 0.01
PAUSE_SHARE = 0.1
"""Pauses between looks, as a share of the time waited so far: what was long in the making is found at most
so much later than it was there."""
MAX_PAUSE_S = 0.25

APART = "-"
"""In place of a word: what was made could not be kept, so that each makes its own for the time of a lease."""


class Asked(NamedTuple):
    """What is looked for."""

    tenant: str
    digest: str
    oldest: float
    """Unix seconds: what was made earlier does not count."""
    priority: int
    """What is smaller is more urgent."""
    deadline: float
    """Unix seconds."""


class Sought(NamedTuple):
    """What was found. Without a result whoever looked makes it."""

    result: Result | None = None
    word: str = ""
    """Of the claim on it, if there is one."""
    waited: bool = False
    """Whether another runner was making it."""


class Claims:
    """Of one runner and event loop, on results in the store that all share."""

    def __init__(self, results: Results, *, lease_s: float = LEASE_S) -> None:
        self._results = results
        self._lease_s = lease_s
        self._held = 0
        self._waits = 0

    async def seek(self, asked: Asked) -> Sought:
        """The result, a claim on it, or neither. Waits as long as another runner makes it.

        Raises nothing. A claim is to be held: `holding`.
        """
        if self._held >= MAX_CLAIMS:
            return Sought(await self._results.get(asked.tenant, asked.digest, asked.oldest))
        word = f"{secrets.token_hex(8)} {asked.priority}"
        try:
            sought = await self._look(asked, word)
            if sought is not None or self._waits >= MAX_WAITS:
                return sought or Sought()
            self._waits += 1
            try:
                return await self._await(asked, word)
            finally:
                self._waits -= 1
        except asyncio.CancelledError:
            self._leave(asked, word, "")
            raise

    @asynccontextmanager
    async def holding(self, asked: Asked, sought: Sought) -> AsyncIterator[None]:
        """Renews the claim while the result is made.

        Ends it where none came: of work that was cancelled the next runner makes the result, of work that
        failed each makes its own.
        """
        if not sought.word:
            yield
            return
        self._held += 1
        beat = asyncio.get_running_loop().create_task(self._renew(asked, sought.word))
        try:
            yield
        except asyncio.CancelledError:
            self._leave(asked, sought.word, "")
            raise
        except BaseException:
            self._leave(asked, sought.word, APART)
            raise
        finally:
            self._held -= 1
            beat.cancel()

    def keep(self, asked: Asked, sought: Sought, result: Result, keep_s: float) -> None:
        """Keeps what was made for so many seconds. Who waits finds it, or learns that it cannot be kept."""
        kept = self._results.put(asked.tenant, asked.digest, result, keep_s, sought.word)
        if sought.word and not kept:
            self._leave(asked, sought.word, APART)

    async def _await(self, asked: Asked, word: str) -> Sought:
        for pause in _pauses(asked.deadline):
            await asyncio.sleep(pause)
            sought = await self._look(asked, word)
            if sought is not None:
                return sought._replace(waited=True)
        return Sought(waited=True)

    async def _look(self, asked: Asked, word: str) -> Sought | None:
        """None where another makes it who is worth waiting for."""
        look = await self._results.look(asked.tenant, asked.digest, asked.oldest, word, self._lease_s)
        if look.held == word:
            if look.result is None:
                return Sought(word=word)
            self._leave(asked, word, "")  # it came between the two round trips of the look
        if look.result is not None or look.held in ("", APART):
            return Sought(look.result)
        return None if _worth_waiting(look.held, asked.priority) else Sought()

    async def _renew(self, asked: Asked, word: str) -> None:
        """Until it is not ours any more."""
        ours = True
        while ours:
            await asyncio.sleep(self._lease_s / RENEWALS)
            ours = await self._results.renew(asked.tenant, asked.digest, word, self._lease_s)

    def _leave(self, asked: Asked, word: str, becomes: str) -> None:
        self._results.leave(asked.tenant, asked.digest, word, becomes, self._lease_s)


def _worth_waiting(word: str, priority: int) -> bool:
    try:
        theirs = int(word.rpartition(" ")[2])
    except ValueError:  # of another version of this program
        return False
    return theirs - priority < MUCH_MORE_URGENT


def _pauses(deadline: float) -> Iterator[float]:
    """Seconds, until the patience of whoever has the deadline is at its end."""
    began = time.monotonic()
    until = began + PATIENCE * max(0.0, deadline - time.time())
    while (now := time.monotonic()) < until:
        pause = min(MAX_PAUSE_S, max(FIRST_PAUSE_S, PAUSE_SHARE * (now - began)))
        yield min(pause * random.uniform(0.5, 1.0), until - now)  # noqa: S311 - it spreads load and guards nothing
