"""What it costs to know whose key a call shows, with one key in the store and with a million.

    kept_us     a key that this gateway saw a moment ago: nothing is asked
    read_us     one that it has not seen: one round trip to the store
    revoked_s   longest until keys in steady use, revoked at another gateway, are refused at this one

Both stores are Valkeys of our own, on this machine.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec

from benchmarks.cases import Case, CaseArm, CaseSample, Described, Measured, Target, measure_cases
from benchmarks.scenario import Options
from runtime.store.client import Store, Word
from runtime.store.embedded import EmbeddedValkey
from serve_apps.gateway.key_tokens import PEPPER_BYTES, KeyTokens
from serve_apps.gateway.keys import KeyRecord, KeyStore, RevokedKey

PEPPER = bytes(PEPPER_BYTES)
TENANT = "benchmark"
MANY = 1_000_000
FEW = 10_000
"""In place of many, to try the scenario out."""
TOGETHER = 1_000
"""Keys written in one round trip."""
KNOWN = 5_000
"""Tokens remembered, to ask for at random."""
KEPT_CALLS = 20_000
READ_CALLS = 2_000
ROUNDS = 5
REVOKED = 20


class KeysScenario:
    """Implements `CaseScenario`."""

    def __init__(self, options: Options) -> None:
        self._many = FEW if options.fake else MANY

    def measure(
        self, repeats: int, progress: Callable[[CaseSample], None]
    ) -> tuple[list[Described], list[CaseSample]]:
        with ExitStack() as stack:
            urls = []
            for _ in range(2):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cgk-"))
                server = EmbeddedValkey(Path(folder))
                urls.append(server.start_or_adopt())
                stack.callback(server.stop)
            return asyncio.run(_measure(urls[0], urls[1], self._many, repeats, progress))


async def _measure(
    one_url: str, many_url: str, many: int, repeats: int, progress: Callable[[CaseSample], None]
) -> tuple[list[Described], list[CaseSample]]:
    one, million = Store.connect(one_url, timeout_s=5), Store.connect(many_url, timeout_s=5)
    try:
        arms = [
            CaseArm("one", "one key in the store", _looking_up(one, await _seed(one, 1))),
            CaseArm("many", f"{many:,} keys in the store", _looking_up(million, await _seed(million, many))),
        ]
        case = Case(
            "look-up",
            "whose key it is, in a gateway",
            arms,
            [
                Target("kept_us", "many", ">=", 0.9, "one"),
                Target("read_us", "many", ">=", 0.9, "one"),
                Target("revoked_s", "many", "<=", 2.0),
            ],
            ("kept_us", "read_us"),
        )
        return [Described.of(case)], await measure_cases([case], repeats, progress)
    finally:
        await one.close()
        await million.close()


async def _seed(store: Store, count: int) -> list[str]:
    """Writes so many keys as `KeyStore.create` does; tokens of some of them, taken evenly."""
    tokens, known, every = KeyTokens(PEPPER), [], max(1, count // KNOWN)
    for start in range(0, count, TOGETHER):
        commands: list[tuple[Word, ...]] = []
        for number in range(start, min(start + TOGETHER, count)):
            key_id = tokens.new_id()
            token, digest = tokens.new_token(key_id)
            record = msgspec.msgpack.encode(KeyRecord(key_id, TENANT, f"key {number}", float(number)))
            commands.append(("HSET", f"cgh:apikey:{key_id}", "record", record, "digest", digest))
            commands.append(("ZADD", f"cgh:{{{TENANT}}}:apikeys", number, key_id))
            if number % every == 0:
                known.append(token)
        await store.execute_many(commands)
    return known


def _looking_up(store: Store, tokens: Sequence[str]) -> Callable[[str], Awaitable[Measured]]:
    async def run(_: str) -> Measured:
        figures = {
            "kept_us": await _kept_us(store, tokens[0]),
            "read_us": await _read_us(store, tokens),
            "revoked_s": await _revoked_s(store),
        }
        return Measured(figures)

    return run


async def _kept_us(store: Store, token: str) -> float:
    keys, rounds = KeyStore(store, PEPPER), []
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(KEPT_CALLS):
            await keys.authenticate(token)
        rounds.append((perf_counter() - began) / KEPT_CALLS * 1e6)
    return median(rounds)


async def _read_us(store: Store, tokens: Sequence[str]) -> float:
    chance, rounds = random.Random(1), []
    for _ in range(ROUNDS):
        chosen = chance.choices(tokens, k=READ_CALLS)
        began = perf_counter()
        for token in chosen:
            await KeyStore(store, PEPPER).authenticate(token)  # one that knows nothing yet
        rounds.append((perf_counter() - began) / READ_CALLS * 1e6)
    return median(rounds)


async def _revoked_s(store: Store) -> float:
    here, there = KeyStore(store, PEPPER), KeyStore(store, PEPPER)

    async def until_refused() -> float:
        token, record = await there.create(TENANT, "to be revoked")
        await here.authenticate(token)
        await there.revoke(record.key_id)
        began = perf_counter()
        while True:
            try:
                await here.authenticate(token)
            except RevokedKey:
                return perf_counter() - began
            await asyncio.sleep(0.005)

    return max(await asyncio.gather(*(until_refused() for _ in range(REVOKED))))
