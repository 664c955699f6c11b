"""The bounded queue between a run and its reader."""

import asyncio

from runtime.events import NodeDelta, NodeStarted
from runtime.executor.queue import EventQueue


async def test_takes_all_that_waits_in_order():
    queue = EventQueue()
    queue.put(NodeStarted("a", "llm"))
    queue.put(NodeDelta("a", "x"))
    assert await queue.take() == [NodeStarted("a", "llm"), NodeDelta("a", "x")]


async def test_a_writer_of_deltas_waits_for_the_reader():
    queue = EventQueue(limit=3)
    written = []

    async def write():
        for number in range(10):
            await queue.put_when_room(NodeDelta("a", str(number)))
            written.append(number)

    writer = asyncio.create_task(write())
    await asyncio.sleep(0)
    assert len(written) == 3
    assert [event.text for event in await queue.take()] == ["0", "1", "2"]
    await asyncio.sleep(0)
    assert len(written) == 6
    seen = 3
    while seen < 10:
        seen += len(await queue.take())
    await writer


async def test_several_writers_share_the_room():
    queue = EventQueue(limit=2)

    async def write(node):
        for _ in range(5):
            await queue.put_when_room(NodeDelta(node, "x"))

    writers = [asyncio.create_task(write(node)) for node in "abc"]
    seen = []
    while len(seen) < 15:
        batch = await queue.take()
        assert len(batch) <= 2
        seen += batch
    await asyncio.gather(*writers)
    assert {event.node for event in seen} == set("abc")


async def test_a_reader_waits_for_events():
    queue = EventQueue()
    reader = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not reader.done()
    queue.put(NodeDelta("a", "x"))
    assert await reader == [NodeDelta("a", "x")]


async def test_events_of_the_plan_are_never_held_back():
    queue = EventQueue(limit=1)
    for number in range(5):
        queue.put(NodeStarted(str(number), "value"))
    assert len(await queue.take()) == 5


async def test_a_watcher_is_told_at_once():
    seen = []
    queue = EventQueue(watch=seen.append)
    queue.put(NodeStarted("a", "llm"))
    await queue.put_when_room(NodeDelta("a", "x"))
    assert seen == [NodeStarted("a", "llm"), NodeDelta("a", "x")]
    assert await queue.take() == seen


async def test_room_is_waited_for():
    queue = EventQueue(limit=1)
    await queue.room()
    queue.put(NodeStarted("a", "value"))
    waiting = asyncio.create_task(queue.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await queue.take()
    await waiting
