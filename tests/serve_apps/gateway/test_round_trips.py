"""What a call asks of the store before its model is called: one round trip, whoever calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from cluster.interface import Batch
from cluster.messages import Generate
from runtime.store.client import ScriptCall, Store
from serve_apps.gateway.keys import KeyStore
from tests.serve_apps.conftest import Start

BESIDE = {"leases_due", "quota_look", "quota_due", "quota_renew", "key_used"}
"""Scripts of what goes on beside all calls."""


async def test_a_known_caller_costs_one_round_trip_on_the_way_in(
    start: Start, one_store: Store, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await start()
    for kept in (keys._known, site.deps.directory._standings):
        monkeypatch.setattr(kept, "_ttl_s", 600.0)  # nothing is read again, however slow the machine is
    trips: list[list[str]] = []
    made: list[list[list[str]]] = []
    run_many, execute_many, generate = one_store.run_many, one_store.execute_many, site.engine.generate

    async def counted_scripts(calls: Sequence[ScriptCall]) -> list[Any]:
        names = [call.script.name for call in calls]
        if not set(names) <= BESIDE:
            trips.append(names)
        return await run_many(calls)

    async def counted_commands(commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        trips.append([str(command[0]) for command in commands])
        return await execute_many(commands)

    async def counted_generate(call: Generate) -> AsyncGenerator[Batch, None]:
        made.append(list(trips))
        async for batch in generate(call):
            yield batch

    monkeypatch.setattr(one_store, "run_many", counted_scripts)
    monkeypatch.setattr(one_store, "execute_many", counted_commands)
    monkeypatch.setattr(site.engine, "generate", counted_generate)
    for _ in range(3):
        assert (await site.chat()).status_code == 200
        await site.settled()
        trips.clear()
    first, *others = made
    assert len(first) > 1  # who calls had to be read
    assert [["quota_reserve" in names for names in each] for each in others] == [[True], [True]]
