"""What calls leave behind: nothing in the memory of a gateway, nothing that stays for ever in the store."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import httpx

from runtime.store.client import Store
from tests.serve_apps.api.durable import desks
from tests.serve_apps.conftest import CHAT, Start

ROUND = 120
AT_ONCE = 6
PER_CALL = 3.0
"""Objects that may be left of a call: far fewer than anything that is kept of it has."""
FOR_EVER = ("audit:", ":apikey:", "apikeys", "usage:", "cgh:quota:due", "cgh:quota:seen")
"""What stays until somebody takes it away: entries of logs, keys, records that are not yet folded, and a word
for each organisation that has quotas."""


async def _call(http: httpx.AsyncClient, number: int) -> int:
    """One of many kinds, with names that nobody had before."""
    said = {"messages": [{"role": "user", "content": f"Why {number}?"}]}
    match number % 6:
        case 0:
            headers = {"x-tags": f"job=j{number}", "x-request-id": f"r-{number}"}
            answer = await http.post("/v1/chat/completions", json={"model": CHAT, **said}, headers=headers)
        case 1:
            answer = await http.post("/v1/chat/completions", json={"model": f"m-{number}", **said})
        case 2:
            answer = await http.get(f"/v1/nothing/{number}?q={number}")
        case 3:
            headers = {"authorization": f"Bearer cgh_{number:032x}_{number:064x}"}
            answer = await http.get("/v1/models", headers=headers)
        case 4:
            answer = await http.post("/v1/chat/completions", json={"model": CHAT, **said, f"f{number}": 1})
        case _:
            body = {"model": CHAT, **said, "stream": True}
            answer = await http.post("/v1/chat/completions", json=body)
    return answer.status_code


async def _calls(http: httpx.AsyncClient, first: int) -> Counter[int]:
    told = Counter[int]()
    for start in range(first, first + ROUND, AT_ONCE):
        told.update(await asyncio.gather(*(_call(http, number) for number in range(start, start + AT_ONCE))))
    return told


def _objects() -> int:
    for _ in range(3):
        gc.collect()
    return len(gc.get_objects())


async def test_calls_leave_nothing_in_memory(start: Start) -> None:
    site = await start()
    site.http.timeout = httpx.Timeout(60)
    await _calls(site.http, 0)
    await site.settled()
    before = _objects()
    told = await _calls(site.http, ROUND)
    told += await _calls(site.http, 2 * ROUND)
    await site.settled()
    left = (_objects() - before) / (2 * ROUND)
    assert set(told) == {200, 400, 401, 404}
    assert left < PER_CALL, f"{left:.1f} objects of each call are left"


async def test_what_is_kept_in_the_store_ends_by_itself(start: Start, one_store: Store) -> None:
    async with desks(start, one_store) as start_one:
        desk = await start_one()
        await _calls(desk.site.http, 0)
        await desk.site.http.post("/v1/responses", json={"model": CHAT, "input": "Hello"})
        await desk.site.chat(contextId="talk")
        once = {"idempotency-key": "once"}
        await desk.site.http.post(
            "/v1/chat/completions",
            json={"model": CHAT, "messages": [{"role": "user", "content": "Hi"}]},
            headers=once,
        )
        assert (await desk.run()).status_code == 200
        await desk.site.settled()
        names = [key.decode() for key in await one_store.execute("KEYS", "*")]
        stay = [name for name in names if await one_store.execute("PTTL", name) == -1]
    assert len(names) > 10
    assert [name for name in stay if not any(word in name for word in FOR_EVER)] == []
