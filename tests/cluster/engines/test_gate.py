from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from cluster.admission.queue import Capacity, Ticket
from cluster.engines.gate import Gate
from cluster.errors import DeadlineExceeded, Overloaded
from cluster.messages import Generate
from tests.cluster.calls import chat, generate
from tests.cluster.engines.test_serving import settle


class Engine:
    """Tells what a test has set."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}

    def produced(self) -> Mapping[str, int]:
        return self.made


def gate(engine: Engine | None = None, **capacity: int) -> Gate:
    return Gate(Capacity(**({"sequences": 1} | capacity)), engine)


def call(name: str = "r", tenant: str = "a", **fields: Any) -> Generate:
    return chat(request_id=name, tenant=tenant, **fields)


async def entered(gate: Gate, *calls: Generate) -> list[asyncio.Task[Ticket]]:
    tasks = [asyncio.create_task(gate.enter(each)) for each in calls]
    await settle()
    return tasks


async def test_a_call_that_finds_room_does_not_give_up_the_loop() -> None:
    entering = gate().enter(call())
    with pytest.raises(StopIteration) as returned:
        entering.send(None)
    assert returned.value.value.state == "running"


async def test_the_next_goes_in_when_one_leaves() -> None:
    door = gate()
    first = await door.enter(call("first"))
    second, third = await entered(door, call("second"), call("third"))
    assert not second.done()
    door.leave(first, call("first"), done=True)
    await settle()
    assert second.done()
    assert not third.done()
    assert door.state().waiting == 1
    door.leave(second.result(), call("second"), done=True)
    door.leave(await third, call("third"), done=True)
    assert (door.state().waiting, door.state().sequences) == (0, 0)


async def test_a_call_that_is_cancelled_is_gone_at_once() -> None:
    door = gate()
    first = await door.enter(call("first"))
    second, third = await entered(door, call("second"), call("third"))
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert door.state().waiting == 1
    door.leave(first, call("first"), done=True)
    await third


async def test_a_call_cancelled_as_its_turn_comes_passes_it_on() -> None:
    door = gate()
    first = await door.enter(call("first"))
    second, third = await entered(door, call("second"), call("third"))
    door.leave(first, call("first"), done=True)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert (await third).state == "running"
    assert door.state().sequences == 1


async def test_what_was_held_back_goes_in_though_nothing_moves_any_more() -> None:
    door = gate(reading_tokens=500)
    urgent = await door.enter(call("urgent", priority=-10_000))
    [low] = await entered(door, call("low", priority=10_000))
    door.leave(urgent, call("urgent", priority=-10_000), done=True)
    async with asyncio.timeout(30):
        assert (await low).state == "running"


async def test_a_deadline_ends_the_wait_even_where_nothing_moves() -> None:
    door = gate()
    await door.enter(call("first"))
    with pytest.raises(DeadlineExceeded):
        await door.enter(call("second", deadline=time.time() + 0.02))
    assert door.state().waiting == 0


async def test_a_call_that_comes_too_late_is_refused() -> None:
    with pytest.raises(DeadlineExceeded):
        await gate().enter(call(deadline=time.time() - 1))


async def test_a_full_queue_refuses() -> None:
    door = gate(waiting=1)
    await door.enter(call())
    await entered(door, call())
    with pytest.raises(Overloaded) as refused:
        await door.enter(call())
    assert refused.value.retry_after_s
    assert door.state().refused == 1


async def test_a_reply_in_one_piece_is_charged_while_it_is_made() -> None:
    engine = Engine()
    door = gate(engine, sequences=2)
    inside = [await door.enter(call(name, name)) for name in ("a", "b")]
    waiting = await entered(door, call("a2", "a"), call("b2", "b"))
    engine.made = {"a": 20, "b": 2, "unknown": 7}
    door.leave(inside[1], call("b", "b"), done=False)
    await settle()
    assert [task.done() for task in waiting] == [False, True]
    waiting[0].cancel()


async def test_a_prompt_that_was_read_makes_room_for_the_next() -> None:
    engine = Engine()
    door = gate(engine, sequences=4, reading_tokens=500)
    await door.enter(call("first", prompt_tokens=400))
    [second] = await entered(door, call("second", prompt_tokens=400))
    assert door.state().reading_tokens == 400
    engine.made = {"first": 1}
    await second  # which the gate finds by looking
    streamed = call("third", prompt_tokens=400, stream=True)
    [third] = await entered(door, streamed)
    engine.made["second"] = 1
    ticket = await third
    [fourth] = await entered(door, call("fourth", prompt_tokens=400))
    door.observe(ticket, 1)
    await fourth


async def test_likely_output_is_what_the_caller_says_or_what_calls_have_used() -> None:
    door = gate(sequences=100, kv_tokens=100_000)
    told = call(prompt_tokens=10, max_tokens=1000, expected_tokens=50)
    ticket = await door.enter(told)
    assert ticket.booked == 60
    several = msgspec.structs.replace(told, sampling=msgspec.structs.replace(told.sampling, n=3))
    assert (await door.enter(several)).booked == 160
    untold = call(prompt_tokens=10, max_tokens=1000)
    assert (await door.enter(untold)).booked == 1010
    for _ in range(100):
        used = await door.enter(untold)
        door.observe(used, 100)
        door.leave(used, untold, done=True)
    assert 100 <= (await door.enter(untold)).booked - 10 <= 120


async def test_prompts_that_nobody_counted_are_estimated() -> None:
    door = gate(sequences=9, kv_tokens=100_000)
    assert (await door.enter(generate(prompt="x" * 400, max_tokens=1))).ask.prompt_tokens == 101
    assert (await door.enter(chat("x" * 400))).ask.prompt_tokens == 101
