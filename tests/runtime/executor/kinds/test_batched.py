"""Functions that take batches: whose calls meet in one, and what becomes of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.errors import DeadlineExceeded, ModelUnavailable, Overloaded
from graphs.functions import spec_of
from graphs.nodes.map import Map
from runtime.errors import NodeError
from runtime.executor import batches as queues
from runtime.executor.batches import Batches
from runtime.executor.kinds.function import prepare
from runtime.executor.kinds.kind import Resources
from runtime.executor.queue import EventQueue
from runtime.executor.run import RunScope
from runtime.runner import Runner
from tests.cluster.engines.test_serving import settle
from tests.graphs import sample_functions as sample
from tests.runtime.executor.plans import asked, body, node, plan
from tests.runtime.parts import failed, finished, node_call, pools

HERE = "tests.graphs.sample_functions"


@pytest.fixture(autouse=True)
def batches() -> Iterator[list[list[Any]]]:
    """What functions are called with."""
    sample.BATCHES.clear()
    sample.LET_GO.clear()
    yield sample.BATCHES
    sample.LET_GO.set()


class Function:
    """One function, as several runs call it."""

    def __init__(self, name: str, weights: dict[str, float] | None = None) -> None:
        self.resources = Resources({}, batches=Batches(weights or {}))
        self._spec = spec_of(f"{HERE}:{name}")

    async def __call__(self, tenant: str = "", timeout_s: float = 60.0, **inputs: Any) -> dict[str, Any]:
        scope = RunScope("run", time.time() + timeout_s, tenant, 0, False)
        # Each run, and each graph, has prepared it for itself.
        perform = prepare(self._spec, self.resources)
        return await perform(node_call(scope, EventQueue(), "node", 0), inputs)

    def begin(self, *texts: str, **scope: Any) -> list[asyncio.Task[dict[str, Any]]]:
        return [asyncio.create_task(self(texts=text, **scope)) for text in texts]

    @property
    def waiting(self) -> int:
        return sum(state.waiting for state in self.resources.batches.states().values())


async def until(reached: int, what: list[Any]) -> None:
    async with asyncio.timeout(30):
        while len(what) < reached:
            await asyncio.sleep(0.001)


async def test_calls_of_several_runs_meet(batches: list[list[Any]]) -> None:
    call = Function("sizes")
    made = await asyncio.gather(*call.begin("a", "bc", "def"))
    assert made == [{"value": 1}, {"value": 2}, {"value": 3}]
    assert batches == [["a", "bc", "def"]]


async def test_what_comes_while_a_batch_is_worked_at_is_the_next(batches: list[list[Any]]) -> None:
    call = Function("held_together")
    tasks = call.begin("a")
    await until(1, batches)
    tasks += call.begin("b", "c")
    await settle()
    assert call.waiting == 2
    sample.LET_GO.set()
    assert await asyncio.gather(*tasks) == [{"value": each} for each in "abc"]
    assert batches == [["a"], ["b", "c"]]


async def test_a_call_that_is_wrong_fails_alone() -> None:
    call = Function("sizes")
    right, wrong, also = await asyncio.gather(*call.begin("a", "", "b"), return_exceptions=True)
    assert (right, also) == ({"value": 1}, {"value": 1})
    assert isinstance(wrong, NodeError)
    assert wrong.message == f"{HERE}:sizes failed: ValueError: nothing"


async def test_an_input_that_does_not_fit_is_not_in_the_batch(batches: list[list[Any]]) -> None:
    call = Function("sizes")
    wrong, right = await asyncio.gather(call(texts=3), call(texts="a"), return_exceptions=True)
    assert isinstance(wrong, NodeError)
    assert "the input texts does not fit" in wrong.message
    assert (right, batches) == ({"value": 1}, [["a"]])


async def test_lists_are_in_step_and_results_have_fields() -> None:
    call = Function("found_together")
    made = await asyncio.gather(call(texts="a", points={"x": 1}), call(texts="b", points=sample.Point(2, 2)))
    assert made == [{"text": "a", "score": 1}, {"text": "b", "score": 2}]


async def test_each_call_has_a_key_of_its_own() -> None:
    call = Function("charge_together")
    one, two = await asyncio.gather(call("a", amounts=1), call("b", amounts=2))
    (first, key), (second, other) = one["value"].split(" "), two["value"].split(" ")
    assert (first, second, len(key), len(other)) == ("1", "2", 32, 32)
    assert key != other


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("fail", NodeError, "odd_together failed: ValueError: no such thing"),
        ("stop", NodeError, "odd_together failed: StopIteration"),
        ("busy", ModelUnavailable, "later"),
        ("short", NodeError, "odd_together returned 1 results for 2 calls, not one for each"),
        ("none", NodeError, "odd_together takes batches and returned a NoneType, not a list"),
        ("dict", NodeError, "odd_together takes batches and returned a dict, not a list"),
        ("texts", NodeError, "the output value of .*:odd_together does not fit: 'texts' is not of type"),
    ],
)
async def test_what_is_wrong_with_a_batch_is_told_to_all(
    how: str, kind: type[Exception], message: str
) -> None:
    call = Function("odd_together")
    errors = await asyncio.gather(call(hows=how), call(hows=how), return_exceptions=True)
    for error in errors:
        assert type(error) is kind
        with pytest.raises(kind, match=message):
            raise error
    assert errors[0] is not errors[1]
    assert await call(hows="tuple") == {"value": 1}


async def test_one_that_cancels_itself_holds_nobody_up() -> None:
    call = Function("cancels_itself")
    for _ in range(2):
        with pytest.raises(NodeError, match="was cancelled"):
            await call(texts="a")


async def test_a_call_that_is_cancelled_while_it_waits_is_not_in_a_batch(batches: list[list[Any]]) -> None:
    call = Function("held_together")
    tasks = call.begin("inside")
    await until(1, batches)
    gone, stays = call.begin("gone", "stays")
    await settle()
    gone.cancel()
    await asyncio.wait([gone])
    assert call.waiting == 1
    sample.LET_GO.set()
    assert await asyncio.gather(*tasks, stays) == [{"value": "inside"}, {"value": "stays"}]
    assert batches == [["inside"], ["stays"]]


async def test_a_batch_that_nobody_waits_for_is_given_up() -> None:
    sample.GIVEN_UP.clear()
    call = Function("forever")
    one, other = call.begin("one", "other")
    await settle()
    one.cancel()
    await settle()
    assert sample.GIVEN_UP == []
    other.cancel()
    await until(1, sample.GIVEN_UP)
    assert sample.GIVEN_UP == [["one", "other"]]


async def test_a_thread_that_hangs_holds_up_only_those_in_its_batch(batches: list[list[Any]]) -> None:
    call = Function("held_together")
    [stuck] = call.begin("stuck")
    await until(1, batches)
    stuck.cancel()
    tasks = call.begin("next")
    await until(2, batches)
    sample.LET_GO.set()
    assert await tasks[0] == {"value": "next"}


async def test_a_deadline_ends_a_call_wherever_it_is(batches: list[list[Any]]) -> None:
    call = Function("held_together")
    [inside] = call.begin("inside", timeout_s=2.0)
    await until(1, batches)
    [stays] = call.begin("stays")
    [waiting] = call.begin("waiting", timeout_s=0.05)
    for task in (inside, waiting):
        with pytest.raises(DeadlineExceeded):
            await task
    sample.LET_GO.set()
    assert await stays == {"value": "stays"}


async def test_a_full_queue_pushes_back_before_it_grows(
    batches: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING", 10)
    call = Function("held_together")
    tasks = call.begin("inside", tenant="flood")
    await until(1, batches)
    tasks += call.begin(*map(str, range(10)), tenant="flood")
    await settle()
    refused = [task for task in tasks if task.done()]
    assert refused
    with pytest.raises(Overloaded, match=r"too many calls wait for .*:held_together") as full:
        await refused[0]
    assert full.value.retry_after_s
    [light] = call.begin("light", tenant="light")  # room is left for who sends little
    await settle()
    assert not light.done()
    sample.LET_GO.set()
    assert await light == {"value": "light"}
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_sends_much_does_not_delay_who_sends_little(batches: list[list[Any]]) -> None:
    call = Function("held_together")
    tasks = call.begin("inside")
    await until(1, batches)
    tasks += call.begin(*["flood"] * 40, tenant="flood")
    tasks += call.begin(*["light"] * 3, tenant="light")
    await settle()
    sample.LET_GO.set()
    await asyncio.gather(*tasks)
    order = [text for batch in batches for text in batch]
    assert (order.count("flood"), order.count("light")) == (40, 3)
    assert max(index for index, text in enumerate(order) if text == "light") < 10


async def test_tenants_are_served_by_weight(batches: list[list[Any]]) -> None:
    call = Function("held_together", {"heavy": 3.0})
    tasks = call.begin("inside")
    await until(1, batches)
    for tenant in ("light", "heavy"):
        tasks += call.begin(*[tenant] * 24, tenant=tenant)
    await settle()
    sample.LET_GO.set()
    await asyncio.gather(*tasks)
    order = [text for batch in batches for text in batch][1:17]
    assert 2 <= order.count("heavy") / order.count("light") <= 4


async def test_items_of_maps_of_several_runs_meet(batches: list[list[Any]]) -> None:
    """items ─► all: map (item ─► size) ─► sizes, of two runs and two graphs."""
    inside = body(node("size", spec_of(f"{HERE}:sizes"), texts="${item.value}"), size="${size.value}")
    made = plan(
        node("all", Map(), {"body": inside}, over="${inputs.items}"),
        inputs=("items",),
        sizes="${all.size}",
    )
    runner = Runner([made], Resources(pools()))
    items = ["a" * length for length in range(1, 21)]
    ends = await asyncio.gather(*(finished(runner, asked(items=items)) for _ in range(3)))
    assert [end.outputs for end in ends] == [{"sizes": [*range(1, 21)]}] * 3
    assert sum(map(len, batches)) == 60
    assert len(batches) < 60


async def test_a_run_fails_by_the_item_that_did() -> None:
    inside = body(node("size", spec_of(f"{HERE}:sizes"), texts="${item.value}"), size="${size.value}")
    made = plan(node("all", Map(), {"body": inside}, over="${inputs.items}"), inputs=("items",))
    last = await failed(Runner([made], Resources(pools())), asked(items=["a", "", "b"]))
    assert (last.failure.kind, last.node) == ("NodeError", "all[1].size")
