"""Row 16: calls and pipelines that ask for more than there is.

Each is refused with a 4xx that names what is wrong, costs nothing, and starts nothing in an engine. What is
within the rules but too much for the key is refused by its quota, however many come at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from serve_apps.gateway.limits import Limits
from tests.chaos.client import CHAT, Told, chat, client, post
from tests.chaos.engine import engine_states
from tests.chaos.figures import report, times
from tests.e2e.system import RunningSystem
from tests.serve_apps.api.inline_attacks import ATTACKS

ROUNDS = 10
GREEDY = 200
"""Calls at once, each of which would take an eighth of what the key has."""
TOKENS_A_MINUTE = 10_000
WANTED = 1_250
FAN = "/v1/graphs/fan/runs"


def _deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


CALLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "more tokens than the context": (CHAT, chat("Hi", max_tokens=10**6), "2048"),
    "tokens beyond all numbers": (CHAT, chat("Hi", max_tokens=10**30), "max_tokens"),
    "negative tokens": (CHAT, chat("Hi", max_tokens=-1), "max_tokens"),
    "no tokens": (CHAT, chat("Hi", max_tokens=0), "max_tokens"),
    "many choices": (CHAT, chat("Hi", n=10**6), "n"),
    "a prompt over the context": (CHAT, chat("why " * 5_000), "2048"),
    "a schema of many levels": (
        CHAT,
        chat(
            "Hi", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": _deep(500)}}
        ),
        "response_format",
    ),
    "inputs of many levels": (FAN, {"inputs": {"subjects": _deep(500)}}, "inputs"),
    "more items than a map takes": (FAN, {"inputs": {"subjects": ["fog"] * 5_000}}, "8"),
}
PIPELINES = {
    f"pipeline: {name}": (
        "/v1/runs",
        {"pipeline": text.replace("tiny-chat", "solo"), "inputs": {"q": "x"}},
        why,
    )
    for name, (text, why) in ATTACKS.items()
}


async def _attack(system: RunningSystem, key: str) -> dict[str, tuple[Told, str]]:
    async with client(system, key) as http:
        calls = (CALLS | PIPELINES).items()
        answers = await asyncio.gather(*(post(http, path, body) for _, (path, body, _) in calls))
    return {name: (told, why) for (name, (_, _, why)), told in zip(calls, answers, strict=True)}


async def _be_greedy(system: RunningSystem, key: str) -> list[Told]:
    body = chat("More") | {"model": "solo", "max_tokens": WANTED}
    async with client(system, key, GREEDY) as http:
        return await asyncio.gather(*(post(http, CHAT, body) for _ in range(GREEDY)))


def _refused_by_name(told: Told, why: str) -> bool:
    said = "" if told.error is None else f"{told.error['message']} {told.error.get('param')}"
    return 400 <= told.status < 500 and why in said


def test_what_asks_for_too_much_is_refused(system: RunningSystem) -> None:
    key, record = system.key()
    rounds = times(ROUNDS)
    missed: list[tuple[str, int, Any]] = []
    attacks = 0
    with engine_states(system, "solo") as states:
        before = states.now
        for _ in range(rounds):
            for name, (told, why) in asyncio.run(_attack(system, key)).items():
                attacks += 1
                if not _refused_by_name(told, why):
                    missed.append((name, told.status, told.error or told.cut or told.body))
        ran = states.now["completed"] + states.now["aborted"] - before["completed"] - before["aborted"]
    spent = system.settled(record).tokens
    poor, poor_record = system.key(limits=Limits(tokens_per_minute=TOKENS_A_MINUTE))
    greedy = asyncio.run(_be_greedy(system, poor))
    totals = system.settled(poor_record)
    admitted = sum(told.status == 200 for told in greedy)
    report(
        16,
        "what asks for too much",
        attacks=attacks,
        not_refused_by_name=len(missed),
        engine_calls=ran,
        tokens_spent=spent,
        greedy_calls=len(greedy),
        greedy_admitted=admitted,
        tokens_over_the_limit=max(0, totals.tokens - TOKENS_A_MINUTE),
    )
    assert missed == []
    assert (ran, spent) == (0, 0)
    assert {told.status for told in greedy} == {200, 429}
    assert totals.tokens <= TOKENS_A_MINUTE
    assert totals.reserved == 0
