"""Tokens owed at every moment of a call."""

from __future__ import annotations

from cluster.engines.fake import FakeEngine, FakeTokenCounter
from cluster.errors import InvalidCall
from cluster.messages import Delta, Embed, Finish, Generate, Sampling, Usage
from runtime.events import NodeCalled, NodeDelta, NodeFinished, RunFinished, RunResumed, RunSuspended
from serve_apps.gateway.metering import EmbedMeter, GenerateMeter, RunMeter
from tests.serve_apps.conftest import CHAT, chat_pool

POOL = chat_pool(FakeEngine())


def call(**fields: object) -> Generate:
    return Generate("id", CHAT, 10, 0.0, prompt="one two three", **fields)  # type: ignore[arg-type]


def test_a_stream_owes_its_prompt_and_what_it_sent() -> None:
    meter = GenerateMeter(POOL, call(stream=True), 3)
    assert (meter.owed, meter.begun) == (3, False)
    meter.observe([Delta("four")])
    meter.observe([Delta(" five six")])
    assert (meter.owed, meter.begun) == (3 + 3, True)
    meter.observe([Finish("stop"), Usage(3, 4)])
    assert (meter.owed, meter.usage) == (7, Usage(3, 4))


def test_deltas_without_text_count_too() -> None:
    meter = GenerateMeter(POOL, call(stream=True), 3)
    meter.observe([Delta(tool_calls=[{"index": 0}]), Delta(tool_calls=[{"index": 0}])])
    assert meter.owed == 5


def test_a_whole_call_owes_all_it_might_have_generated() -> None:
    meter = GenerateMeter(POOL, call(sampling=Sampling(n=2)), 3)
    assert meter.owed == 3 + 2 * 10
    meter.observe([Delta("x"), Finish("stop"), Usage(3, 1)])
    assert meter.owed == 4


def test_where_text_cannot_be_counted_bytes_bound_it() -> None:
    class Refusing(type(POOL)):  # type: ignore[misc]
        def count_tokens(self, call: Generate | Embed) -> int:
            raise InvalidCall("no")

    meter = GenerateMeter(Refusing(POOL.info, FakeEngine(), FakeTokenCounter()), call(stream=True), 3)
    meter.observe([Delta("héllo")])
    assert meter.owed == 3 + 6


def test_embeddings() -> None:
    meter = EmbedMeter(5)
    assert (meter.owed, meter.begun) == (5, False)
    meter.usage = Usage(4)
    assert (meter.owed, meter.begun) == (4, True)


def test_runs() -> None:
    meter = RunMeter()
    assert (meter.owed, meter.begun) == (0, False)
    meter.count([NodeCalled("a", CHAT, 10), NodeDelta("a", "123456")])
    assert (meter.owed, meter.begun, meter.usage) == (12, True, None)
    meter.count([RunFinished({}, Usage(9, 1), 0.1)])
    assert (meter.owed, meter.usage) == (10, Usage(9, 1))


def test_a_run_that_another_runner_goes_on_with_is_not_counted_twice() -> None:
    meter = RunMeter()
    meter.count([NodeFinished("a", 0.1, Usage(5, 5)), NodeCalled("b", CHAT, 10), NodeDelta("b", "123456")])
    assert meter.owed == 10 + 12
    meter.count([RunResumed("r", 2, 1)])
    assert meter.owed == 10
    meter.count([NodeCalled("b", CHAT, 10), RunFinished({}, Usage(15, 7), 0.1)])
    assert (meter.owed, meter.usage) == (22, Usage(15, 7))


def test_a_run_that_was_suspended_owes_what_came_since() -> None:
    first = RunMeter()
    first.count([NodeFinished("a", 0.1, Usage(5, 5)), RunSuspended(["ask"], Usage(5, 5), 1.0)])
    assert (first.owed, first.usage) == (10, Usage(5, 5))
    then = RunMeter(before=10)
    assert (then.owed, then.begun) == (0, False)
    then.count([RunResumed("r", 2, 1), RunFinished({}, Usage(9, 8), 0.1)])
    assert then.owed == 7
