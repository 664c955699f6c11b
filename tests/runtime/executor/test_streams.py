import asyncio
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.executor.streams import MAX_AHEAD, Stream


async def read(stream: Stream, most: int | None = None) -> list:
    found = []
    with closing(stream.read()) as reader:
        while most is None or len(found) < most:
            async for _, item in reader.numbered():
                found.append(item)
                break
            else:
                break
    return found


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@given(st.lists(st.integers(), max_size=60), st.integers(0, 5), st.integers(0, 3))
def test_every_reader_gets_all_in_order(items, early, late):
    async def run() -> None:
        stream = Stream()
        readers = [asyncio.create_task(read(stream)) for _ in range(early)]
        for item in items:
            await stream.put(item)
        stream.finish(items)
        readers += [asyncio.create_task(read(stream)) for _ in range(late)]
        assert await asyncio.gather(*readers) == [items] * (early + late)

    asyncio.run(run())


async def test_what_was_not_put_comes_with_the_end():
    stream = Stream()
    reader = asyncio.create_task(read(stream))
    await stream.put(1)
    stream.finish([1, 2, 3])
    assert await reader == [1, 2, 3]


async def test_one_that_is_complete():
    assert await read(Stream.of([1, 2])) == [1, 2]
    assert await read(Stream.of([])) == []


async def make(stream: Stream, count: int) -> None:
    for item in range(count):
        await stream.put(item)
    stream.finish(list(range(count)))


async def test_the_maker_waits_for_the_furthest_reader():
    stream = Stream()
    slow, slower = stream.read(), stream.read()
    maker = asyncio.create_task(make(stream, 100))
    await settle()
    assert len(stream._items) == MAX_AHEAD + 1
    taken = slow.numbered()
    for _ in range(3):
        await anext(taken)
    await settle()
    assert len(stream._items) == MAX_AHEAD + 4
    assert slower.place == 0
    slow.close()
    slower.close()
    await maker
    assert await read(stream) == list(range(100))


async def test_the_maker_goes_on_when_a_reader_has_had_enough():
    stream = Stream()
    maker = asyncio.create_task(make(stream, 100))
    assert await read(stream, 2) == [0, 1]
    await maker


async def test_tasks_that_share_a_reader_get_each_item_once():
    stream = Stream()
    found: list[tuple[int, int]] = []
    reader = stream.read()

    async def work() -> None:
        async for numbered in reader.numbered():
            found.append(numbered)
            await asyncio.sleep(0)

    workers = [asyncio.create_task(work()) for _ in range(5)]
    await make(stream, 40)
    await asyncio.gather(*workers)
    assert found == [(place, place) for place in range(40)]


async def test_two_that_read_each_other_and_the_same_do_not_wait_for_ever():
    """first ─► second ─► last, first ─► last, which reads all of `second` before it reads `first`"""
    first, second = Stream(), Stream()

    async def pass_on() -> None:
        with closing(first.read()) as reader:
            async for _, item in reader.numbered():
                await second.put(item)
        second.finish(list(range(100)))

    async def last() -> list[int]:
        with closing(first.read()) as opened:
            items = await read(second)
            return items + [item async for _, item in opened.numbered()]

    both = asyncio.create_task(last())
    await asyncio.gather(make(first, 100), pass_on())
    assert await both == [*range(100), *range(100)]


async def test_a_node_that_starts_over_forgets_what_nobody_has_read():
    stream = Stream()
    await stream.put(1)
    assert not stream.taken
    stream.clear()
    await stream.put(2)
    stream.finish([2])
    assert await read(stream) == [2]
    assert stream.taken
    with pytest.raises(AssertionError):
        stream.clear()
