"""Tokens owed at every moment of a call."""

from __future__ import annotations

from cluster.engines.fake import FakeEngine, FakeTokenCounter
from cluster.errors import InvalidCall
from cluster.messages import Delta, Embed, Failure, Finish, Generate, Sampling, Usage
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFinished,
    NodeUsage,
    RunFailed,
    RunFinished,
    RunResumed,
    RunSuspended,
)
from serve_apps.accounting.model import Share
from serve_apps.gateway.demand import FREE, Price
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
    meter = EmbedMeter("minilm", 5)
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
    then = RunMeter(before=first)
    assert (then.owed, then.begun) == (0, False)
    then.count([RunResumed("r", 2, 1), RunFinished({}, Usage(9, 8), 0.1)])
    assert then.owed == 7


def test_a_stream_that_is_cut_off_owes_the_time_it_was_told_and_what_both_cost() -> None:
    meter = GenerateMeter(
        POOL, call(stream=True), 3, Price(input=2_000, output=10_000, second=10**9, by="config")
    )
    assert meter.first_token_s is None
    meter.observe([Delta("one"), Delta(" two", engine_ns=500_000_000)])
    assert meter.first_token_s is not None
    [share] = meter.shares()
    assert share == Share(
        CHAT,
        input_tokens=3,
        output_tokens=2,
        engine_ns=500_000_000,
        nanodollars=6 + 20 + 500_000,
        priced_by="config",
    )
    assert share.input_tokens + share.output_tokens == meter.owed


def test_a_call_that_is_not_streamed_owes_the_time_it_waited_where_that_costs_something() -> None:
    free, dear = (GenerateMeter(POOL, call(), 3, price) for price in (FREE, Price(second=10**12)))
    assert free.shares()[0].engine_ns == 0
    assert dear.shares()[0].engine_ns > 0
    dear.observe([Usage(3, 2, engine_ns=7)])
    assert dear.shares()[0].engine_ns == 7


def test_a_run_owes_by_node_and_model() -> None:
    prices = {"small": Price(input=1_000, output=1_000), "embed": Price(second=1_000_000, by="config")}
    meter = RunMeter(prices)
    meter.count(
        [
            NodeCalled("search[0].each", "embed", 5),
            NodeCalled("search[1].each", "embed", 7),
            NodeFinished("search[0].each", 0.1, Usage(5, engine_ns=2_000_000_000)),
            NodeFinished("search[1].each", 0.1, Usage(7, engine_ns=1_000_000_000)),
            NodeCalled("answer", "small", 30),
            NodeDelta("answer", "123456"),
        ]
    )
    searched = Share(
        "embed", "search.each", 12, engine_ns=3_000_000_000, nanodollars=3_000, priced_by="config"
    )
    assert meter.shares() == [Share("small", "answer", 30, output_tokens=2, nanodollars=32), searched]
    assert meter.owed == 12 + 32
    besides = [NodeUsage("answer", "small", Usage(30, 9))]
    meter.count(
        [
            RunFailed(
                Failure("EngineFailed", "x"), Usage(42, 9, engine_ns=3_000_000_000), 1.0, "answer", besides
            )
        ]
    )
    assert meter.shares() == [Share("small", "answer", 30, output_tokens=9, nanodollars=39), searched]


def test_a_run_that_goes_on_owes_by_node_what_came_since() -> None:
    first = RunMeter()
    first.count([NodeCalled("a", "m", 5), NodeFinished("a", 0.1, Usage(5, 5)), NodeCalled("b", "m", 3)])
    first.count([RunSuspended(["ask"], Usage(8, 5), 1.0, [NodeUsage("b", "m", Usage(3))])])
    assert first.shares() == [Share("m", "a", 5, output_tokens=5), Share("m", "b", 3)]
    then = RunMeter(before=first)
    assert then.shares() == []
    then.count([RunResumed("r", 2, 1), NodeCalled("b", "m", 3), NodeFinished("b", 0.1, Usage(6, 4))])
    then.count([RunFinished({}, Usage(11, 9), 0.1)])
    assert then.shares() == [Share("m", "b", 3, output_tokens=4)]
    assert then.owed == 7
