"""`map`: order, bounds and reducers."""

import asyncio

import pytest

from cluster.engines.fake import FakeScript
from graphs.nodes.llm import Llm
from graphs.nodes.map import Map
from graphs.nodes.value import Value
from runtime.plan import ExecutionPlan
from tests.runtime.executor.plans import asked, body, node, outputs_of, plan, runner_of
from tests.runtime.parts import failed, finished, generator


def each(spec: Map, when: str | None = None) -> ExecutionPlan:
    """items ─► all: map (item ─► kept, when it is to be) ─► out"""
    inside = body(node("kept", Value(), value="${item.value}", when=when), out="${kept.value}")
    return plan(
        node("all", spec, {"body": inside}, over="${inputs.items}"), inputs=("items",), out="${all.out}"
    )


@pytest.mark.parametrize("items", [[], [1], [3, 1, 2]])
async def test_results_keep_the_order_of_the_items(items):
    assert await outputs_of(each(Map()), items=items) == {"out": items}


class Slowest:
    """A pool that answers what was asked, the last of those that wait first."""

    def __init__(self, size: int) -> None:
        self._pool = generator("small")
        self.info = self._pool.info
        self.count_tokens = self._pool.count_tokens
        self.most = self._running = self._ended = 0
        self._size = size
        self._turns = [asyncio.Event() for _ in range(size)]

    async def generate(self, call):
        self._running += 1
        self.most = max(self.most, self._running)
        place = int(call.messages[-1].content)
        last = place == self._size - 1 or self._running == 3
        if not last:
            await self._turns[place].wait()
        self._running -= 1
        self._ended += 1
        for turn in self._turns:
            turn.set()
        async for batch in self._pool.generate(call):
            yield batch


async def test_so_many_items_at_a_time_and_no_more():
    asking = node("ask", Llm(model="small", max_tokens=3), prompt="${item.value}", history=[])
    inside = body(asking, text="${ask.text}", place="${item.index}")
    spec = Map(max_concurrency=3)
    made = plan(
        node("all", spec, {"body": inside}, over="${inputs.items}"),
        inputs=("items",),
        texts="${all.text}",
        places="${all.place}",
    )
    items = [str(place) for place in range(10)]
    slowest = Slowest(10)
    outputs = (await finished(runner_of(made, small=slowest), asked(items=items))).outputs
    assert slowest.most == 3
    assert outputs["places"] == list(range(10))
    alone = await finished(runner_of(made, small=generator("small", FakeScript())), asked(items=items))
    assert outputs == alone.outputs
    assert len(set(outputs["texts"])) > 1


async def test_too_many_items_are_refused_before_any_is_begun():
    last = await failed(runner_of(each(Map(max_items=2))), asked(items=[1, 2, 3]))
    assert (last.failure.kind, last.node) == ("NodeError", "all")
    assert last.failure.message == "there are 3 items, max_items is 2"


async def test_what_is_no_list_is_refused():
    last = await failed(runner_of(each(Map())), asked(items="abc"))
    assert last.failure.message == "over is of type string, it must be a list"


@pytest.mark.parametrize(
    ("reducer", "items", "result", "of_nothing"),
    [
        ("flatten", [[1, 2], None, [], [3]], [1, 2, 3], []),
        ("join", ["a", None, "b"], "a\n\nb", ""),
        ("sum", [1, None, 2.5], 3.5, 0),
        ("min", [3, None, 2], 2, None),
        ("max", [3, None, 4], 4, None),
        ("any", [False, None, True], True, False),
        ("all", [True, None, True], True, True),
        ("collect", [1, None], [1, None], []),
    ],
)
async def test_reducers_leave_out_what_is_absent(reducer, items, result, of_nothing):
    spec = Map(reduce={"out": reducer})
    assert await outputs_of(each(spec, when="item.value != null"), items=items) == {"out": result}
    assert await outputs_of(each(spec), items=[]) == {"out": of_nothing}


@pytest.mark.parametrize(
    ("reducer", "items"), [("sum", ["a"]), ("join", [1]), ("flatten", [1]), ("flatten", ["ab"])]
)
async def test_what_does_not_fit_a_reducer_fails_the_node(reducer, items):
    last = await failed(runner_of(each(Map(reduce={"out": reducer}))), asked(items=items))
    assert (last.failure.kind, last.node) == ("NodeError", "all")
    assert last.failure.message == f"what its body gives as out does not fit the reducer {reducer}"
