"""`function` nodes: how the function is called, and what is made of what it returns or raises."""

import threading
import time

import pytest

from cluster.errors import ModelUnavailable
from graphs.builder import Builder
from graphs.documents import Document
from graphs.functions import FunctionRefused, spec_of
from graphs.nodes.function import Function
from graphs.ports import STRING
from runtime.errors import NodeError
from runtime.executor.kinds.function import prepare
from runtime.executor.kinds.kind import Resources
from runtime.executor.queue import EventQueue
from runtime.executor.run import RunScope
from tests.graphs import sample_functions as sample
from tests.runtime.executor.plans import asked, node, plan, runner_of
from tests.runtime.parts import failed, finished, make_runner, node_call, request

HERE = "tests.graphs.sample_functions"
NOTHING = Resources({}, {})


async def call(name: str, /, **inputs):
    spec = spec_of(f"{HERE}:{name}")
    scope = RunScope("run", time.time() + 10, "", 0, False)
    return await prepare(spec, NOTHING)(node_call(scope, EventQueue(), "node", 0), inputs)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("shout", {"text": "a", "times": 2}, {"value": "A!!"}),
        ("shout", {"text": "a", "times": 2.0}, {"value": "A!!"}),
        ("later", {"text": "abc"}, {"value": "cba"}),
        ("split", {"text": "a b c"}, {"head": "a", "rest": ["b", "c"]}),
        ("found", {"text": None}, {"text": "nothing", "score": None}),
        ("move", {"point": {"x": 1}, "by": {"x": 2}}, {"value": {"x": 3, "y": 0}}),
        ("move", {"point": sample.Point(1, 1), "by": {"x": 2}}, {"value": {"x": 3, "y": 1}}),
        ("where", {}, {"value": None}),
        ("give", {"what": [1, {"a": None}]}, {"value": [1, {"a": None}]}),
        ("give", {"what": "document"}, {"value": [Document("1", "a", score=0.5)]}),
        ("give", {"what": "points"}, {"value": {"all": [{"x": 1, "y": 0}, {"x": 2, "y": 3}]}}),
    ],
)
async def test_values(name, inputs, outputs):
    assert await call(name, **inputs) == outputs


@pytest.mark.parametrize("name", ["charge", "charge_later"])
async def test_a_function_may_take_a_key_that_stays_the_same(name):
    first, again = await call(name, amount=3), await call(name, amount=3)
    amount, _, key = first["value"].partition(" ")
    assert first == again
    assert (amount, len(key)) == ("3", 32)


@pytest.mark.parametrize("documents", [[Document("1", "a b")], [{"id": "1", "text": "a b"}]])
async def test_documents_are_documents(documents):
    assert await call("titles", documents=documents) == {"value": [Document("1", "A B")]}


async def test_documents_where_objects_are_taken():
    assert await call("keys", item=Document("1", "a", line=3)) == {"value": ["id", "line", "text"]}


async def test_a_function_that_is_not_cheap_has_a_thread_of_its_own():
    sample.THREADS.clear()
    await call("where")
    await call("where_cheap")
    slow, cheap = sample.THREADS
    assert slow is not threading.current_thread()
    assert cheap is threading.current_thread()


async def test_an_input_that_does_not_fit():
    with pytest.raises(NodeError, match="the input point does not fit") as refused:
        await call("move", point={"x": "one"}, by={})
    assert refused.value.param == "point"


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("wrong", {}, "the output value of .*:wrong does not fit: 'seven' is not of type 'integer'"),
        ("wrong_fields", {}, "the output text of .* does not fit: None is not of type 'string'"),
        ("no_fields", {}, "returned a str and not what its hint says"),
        ("give", {"what": "set"}, "a set is no value of JSON"),
        ("give", {"what": "big"}, "a number does not fit 64 bits"),
        ("give", {"what": "lone"}, "a text is not valid Unicode"),
    ],
)
async def test_outputs_that_do_not_fit(name, inputs, message):
    with pytest.raises(NodeError, match=message):
        await call(name, **inputs)


@pytest.mark.parametrize("name", ["fail", "fail_later"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("value", "failed: ValueError: no such thing"),
        ("long", "failed: KeyError: 'x"),
        ("exit", "failed: SystemExit: 3"),
    ],
)
async def test_what_it_raises_is_told_without_its_traceback(name, how, message, caplog):
    with pytest.raises(NodeError) as refused:
        await call(name, how=how)
    assert message in refused.value.message
    assert len(refused.value.message) < 300
    assert "Traceback" not in refused.value.message
    (record,) = caplog.records
    assert record.exc_info is not None


async def test_an_exception_that_no_future_takes():
    with pytest.raises(NodeError, match="StopIteration"):
        await call("fail", how="stop")


@pytest.mark.parametrize("name", ["fail", "fail_later"])
async def test_errors_of_the_cluster_stay_what_they_are(name):
    with pytest.raises(ModelUnavailable, match="later"):
        await call(name, how="busy")


def test_what_is_gone_is_found_before_the_first_run():
    with pytest.raises(FunctionRefused, match="has no function"):
        prepare(Function(f"{HERE}:gone"), NOTHING)


async def test_in_a_run():
    b = Builder("loud")
    loud = b.add("loud", spec_of(f"{HERE}:shout"), text=b.input("question", STRING))
    b.output("text", loud["value"])
    pipeline = b.build()
    end = await finished(make_runner(pipeline), request(pipeline))
    assert end.outputs == {"text": "WHY!"}


async def test_a_function_that_blocks_its_thread_has_a_time_out_too():
    """The run goes on without it, though nothing can end the function itself."""
    sample.LET_GO.clear()
    stuck = node("stuck", spec_of(f"{HERE}:held"), policies={"timeout_s": 0.3}, text="${inputs.q}")
    try:
        last = await failed(runner_of(plan(stuck, inputs=("q",), text="${stuck.value}")), asked(q="a"))
    finally:
        sample.LET_GO.set()
    assert (last.failure.kind, last.node) == ("DeadlineExceeded", "stuck")
