from __future__ import annotations

import time

import pytest

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter, Rule
from cluster.errors import DeadlineExceeded
from cluster.interface import ModelInfo
from cluster.pools.local import LocalPool
from tests.cluster.calls import chat, embed, events_of, text_of

INFO = ModelInfo("m", "generate", 2048, 256)


def pool_of(**script: object) -> LocalPool:
    return LocalPool(INFO, FakeEngine(FakeScript(**script)), FakeTokenCounter())  # type: ignore[arg-type]


async def test_calls_reach_the_engine() -> None:
    pool = pool_of(rules=[Rule(contains="", reply="Hello.")])
    assert text_of(await events_of(pool.generate(chat()))) == "Hello."
    assert len((await pool.embed(embed("a", "b"))).vectors) == 2
    assert pool.count_tokens(chat("one two")) == 2
    assert await pool.ready()


@pytest.mark.parametrize("late_s", [-1.0, 0.02])
async def test_the_deadline_holds_in_the_callers_process_too(late_s: float) -> None:
    pool = pool_of(first_token_s=9.0)
    with pytest.raises(DeadlineExceeded):
        await events_of(pool.generate(chat(deadline=time.time() + late_s)))
    with pytest.raises(DeadlineExceeded):
        await pool.embed(embed("a", deadline=time.time() + late_s))
