"""Row 8: many requests under few idempotency keys, at the same time and on two gateways.

Each key is one call in the engine and one charge; whoever comes while it is answered is told to come again,
and everybody gets the same answer in the end.
"""

from __future__ import annotations

import asyncio

import httpx

from tests.chaos.client import CHAT, Told, chat, client, post, stream
from tests.chaos.engine import engine_states
from tests.chaos.figures import report, times
from tests.e2e.system import RunningSystem

KEYS = 500
DUPLICATES = 20
KEYS_AT_ONCE = 8
AGAIN_S = 0.2
"""Pause of a client that was told to come again: shorter than it was told, so that more of them meet."""
TOKENS_OF_A_CALL = 3 + 16


async def _insist(http: httpx.AsyncClient, number: int) -> tuple[Told, int]:
    """The answer under key `number`, and how often it was not there yet. Every second key is streamed."""
    body = chat(f"Call number {number}") | {"model": "solo"}
    headers = {"idempotency-key": f"order-{number}"}
    early = 0
    while True:
        if number % 2:
            told = await stream(http, CHAT, body, **headers)
        else:
            told = await post(http, CHAT, body, **headers)
        if told.status != 409:
            return told, early
        early += 1
        await asyncio.sleep(AGAIN_S)


async def _ask(system: RunningSystem, key: str, keys: int) -> list[list[tuple[Told, int]]]:
    """What every duplicate was told, by key."""
    at_once = asyncio.Semaphore(KEYS_AT_ONCE)

    async def ask(http: httpx.AsyncClient, number: int) -> list[tuple[Told, int]]:
        async with at_once:
            return await asyncio.gather(*(_insist(http, number) for _ in range(DUPLICATES)))

    async with client(system, key) as http:
        return await asyncio.gather(*(ask(http, number) for number in range(keys)))


def test_a_key_is_one_call(system: RunningSystem) -> None:
    key, record = system.key()
    keys = times(KEYS)
    with engine_states(system, "solo") as states:
        before = states.now
        answers = asyncio.run(_ask(system, key, keys))
        totals = system.settled(record)
        calls = states.now["completed"] - before["completed"]
        aborted = states.now["aborted"] - before["aborted"]
    told = [each for of_key in answers for each, _ in of_key]
    failed = [each for each in told if not each.done]
    unlike = sum(
        len({("".join(each.pieces), str(each.body)) for each, _ in of_key}) != 1 for of_key in answers
    )
    report(
        8,
        "idempotency keys with duplicates",
        keys=keys,
        requests=len(told),
        told_to_come_again=sum(early for of_key in answers for _, early in of_key),
        engine_calls=calls + aborted,
        failed=len(failed),
        keys_with_unlike_answers=unlike,
        tokens_charged=totals.tokens,
        tokens_owed=keys * TOKENS_OF_A_CALL,
    )
    assert [(each.status, each.error, each.cut) for each in failed] == []
    assert (calls, aborted) == (keys, 0)
    assert unlike == 0
    assert (totals.tokens, totals.reserved) == (keys * TOKENS_OF_A_CALL, 0)
