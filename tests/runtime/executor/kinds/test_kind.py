"""What several kinds need."""

import asyncio

import pytest

from runtime.errors import NodeError
from runtime.executor.kinds.kind import together


async def test_work_is_done_together():
    done: list[int] = []
    turns = [asyncio.Event(), asyncio.Event()]

    async def work(place: int) -> None:
        turns[place].set()
        await turns[1 - place].wait()
        done.append(place)

    await together(work(place) for place in (0, 1))
    assert sorted(done) == [0, 1]


async def test_the_first_failure_is_raised_and_ends_the_rest():
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waiting")

    async def fail() -> None:
        raise NodeError("no")

    with pytest.raises(NodeError, match="no"):
        await together([wait(), fail(), wait()])
    assert ended == ["waiting", "waiting"]
    assert len(asyncio.all_tasks()) == 1
