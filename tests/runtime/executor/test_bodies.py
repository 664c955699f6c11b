"""Nodes inside nodes: what they see, what they are called, how they end."""

import asyncio
import gc
import weakref
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Generate, Usage
from graphs.nodes.branch import Branch
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.subgraph import Subgraph
from graphs.nodes.value import Value
from graphs.ports import ANY, Port
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFailed,
    NodeFinished,
    NodeSkipped,
    NodeStarted,
    Tally,
)
from runtime.executor import run
from runtime.executor.kinds.kind import Resources
from runtime.plan import ExecutionPlan
from runtime.runner import Runner
from tests.runtime.executor.plans import asked, body, node, outputs_of, plan, runner_of
from tests.runtime.parts import Shelf, events_of, failed, finished, generator, pools

pytestmark = pytest.mark.leaping

SMALL = Llm(model="small", max_tokens=4)
FIND = node("find", Retrieve(index="manual"), embedding=[1.0], top_k=1)


def shout_each(**spec) -> ExecutionPlan:
    """items ─► all: map (each: prompt) ─► all"""
    inside = body(
        node(
            "each",
            Prompt(template="{{ i }}:{{ x }}{{ q }}"),
            x="${item.value}",
            i="${item.index}",
            q="${inputs.q}",
        ),
        text="${each.text}",
    )
    mapped = node("all", Map(**spec), {"body": inside}, over="${inputs.items}")
    return plan(mapped, inputs=("items", "q"), all="${all.text}")


async def test_a_body_sees_its_locals_and_what_is_around_it():
    assert await outputs_of(shout_each(), items=["a", "b"], q="?") == {"all": ["0:a?", "1:b?"]}


async def test_nodes_inside_are_named_by_their_paths():
    events = await events_of(runner_of(shout_each()), asked(items=["a", "b"], q="?"))
    names = [(type(event), event.node) for event in events if isinstance(event, NodeStarted | NodeFinished)]
    assert names == [
        (NodeStarted, "all"),
        (NodeStarted, "all[0].each"),
        (NodeFinished, "all[0].each"),
        (NodeStarted, "all[1].each"),
        (NodeFinished, "all[1].each"),
        (NodeFinished, "all"),
    ]


def nested() -> ExecutionPlan:
    """A map in a branch in a map, with a model at the bottom that captures from every level."""
    ask = node(
        "ask",
        Prompt(template="{{ a }} {{ b }} {{ c }}"),
        a="${inputs.q}",
        b="${row.value}",
        c="${cell.value}",
    )
    bottom = body(ask, node("say", SMALL, prompt="${ask.text}", history=[]), text="${say.text}")
    cells = node("cells", Map(as_="cell"), {"body": bottom}, over="${row.value}")
    case = body(cells, texts="${cells.text}", when="size(row.value) > 1")
    pick = node("pick", Branch(), {"0": case})
    rows = node("rows", Map(as_="row"), {"body": body(pick, texts="${pick.texts}")}, over="${inputs.rows}")
    return plan(rows, inputs=("rows", "q"), texts="${rows.texts}")


class Recorder:
    """A pool that keeps the calls it passes on."""

    def __init__(self, pool) -> None:
        self._pool = pool
        self.calls: list[Generate] = []
        self.info = pool.info
        self.count_tokens = pool.count_tokens

    def generate(self, call):
        self.calls.append(call)
        return self._pool.generate(call)


async def test_bodies_inside_bodies():
    small = Recorder(generator("small"))
    events = await events_of(runner_of(nested(), small=small), asked(rows=[["a"], ["b", "c"]], q="?"))
    assert [call.messages[-1].content for call in small.calls] == ["? ['b', 'c'] b", "? ['b', 'c'] c"]
    assert [call.request_id for call in small.calls] == [
        "run-1.rows[1].pick.0.cells[0].say",
        "run-1.rows[1].pick.0.cells[1].say",
    ]
    called = [event.node for event in events if isinstance(event, NodeCalled)]
    assert called == ["rows[1].pick.0.cells[0].say", "rows[1].pick.0.cells[1].say"]
    none, texts = events[-1].outputs["texts"]
    assert none is None
    assert len(texts) == 2


async def test_calls_inside_have_the_priority_of_the_nodes_around_them_too():
    made = nested()
    steps = tuple(replace(step, priority=7) for step in made.steps)
    small = Recorder(generator("small"))
    asking = replace(asked(rows=[["b", "c"]], q="?"), priority=100)
    await events_of(runner_of(replace(made, steps=steps), small=small), asking)
    assert [call.priority for call in small.calls] == [107, 107]


async def test_tokens_inside_bodies_are_counted_once():
    events = await events_of(runner_of(nested()), asked(rows=[["a"], ["b", "c"]], q="?"))
    tally = Tally()
    for event in events[:-1]:
        tally.add(event)
    own = {event.node: event.usage for event in events if isinstance(event, NodeFinished)}
    assert own["rows"] is None
    assert own["rows[1].pick.0.cells[0].say"] == Usage(4, 4)
    assert tally.usage == events[-1].usage == Usage(8, 8)


async def test_what_is_absent_around_a_body_is_absent_in_it():
    made = node("maybe", Value(), when="inputs.q == 'yes'", value="${inputs.q}")
    lost = node("lost", Prompt(template="{{ x }}"), x="${maybe.value}")
    seen = node("seen", Value(), value=["${maybe.value}"])
    inside = body(lost, seen, lost="${lost.text}", seen="${seen.value}")
    made_of = plan(
        made,
        node("all", Map(), {"body": inside}, over=[1]),
        inputs=("q",),
        lost="${all.lost}",
        seen="${all.seen}",
    )
    assert await outputs_of(made_of, q="no") == {"lost": [None], "seen": [[None]]}
    assert await outputs_of(made_of, q="yes") == {"lost": ["yes"], "seen": [["yes"]]}
    events = await events_of(runner_of(made_of), asked(q="no"))
    assert NodeSkipped("all[0].lost", "prompt", "its input x is absent") in events


async def test_a_closed_body_sees_only_what_it_is_given():
    inner = node("maybe", Prompt(template="inner {{ x }}"), x="${inputs.q}")
    sub = Subgraph(graph="other", ports={"q": Port(ANY)})
    outer = node("maybe", Value(), when="false", value=1)
    nested = node("sub", sub, {"body": body(inner, text="${maybe.text}")}, q="given")
    made = plan(outer, nested, inputs=("q",), text="${sub.text}", maybe="${maybe.value}")
    assert await outputs_of(made, q="outer") == {"text": "inner given", "maybe": None}
    events = await events_of(runner_of(made), asked(q="outer"))
    assert "sub.maybe" in [event.node for event in events if isinstance(event, NodeFinished)]


def asking(over="${inputs.items}", **spec) -> ExecutionPlan:
    """items ─► all: map (each: llm) ─► all"""
    inside = body(node("each", SMALL, prompt="${item.value}", history=[]), text="${each.text}")
    mapped = node("all", Map(**spec), {"body": inside}, over=over)
    return plan(mapped, inputs=("items",), all="${all.text}")


async def test_a_failure_inside_ends_the_run_and_all_that_runs():
    script = FakeScript(
        first_token_s=30,
        rules=[Rule(contains="bad", failure=Failure("EngineFailed", "it broke"))],
    )
    small = generator("small", script)

    class Quick:
        """Fails at once where the engine would wait first."""

        info, count_tokens = small.info, staticmethod(small.count_tokens)

        def generate(self, call):
            if "bad" in call.messages[-1].content:
                return generator("small", FakeScript(rules=script.rules)).generate(call)
            return small.generate(call)

    before = asyncio.all_tasks()
    events = await events_of(runner_of(asking(), small=Quick()), asked(items=["a", "b", "bad", "c"]))
    assert asyncio.all_tasks() == before
    assert events[-1].node == "all[2].each"
    assert events[-1].failure == Failure("EngineFailed", "it broke")
    assert [event for event in events if isinstance(event, NodeFailed)] == [
        NodeFailed("all[2].each", Failure("EngineFailed", "it broke"))
    ]
    status = await small.engine.status()
    assert (status.running, status.aborted) == (0, 3)
    assert events[-1].usage == Usage(prompt_tokens=4)


async def test_closing_a_run_aborts_the_calls_inside_bodies():
    small = generator("small", FakeScript(first_token_s=30))
    before = asyncio.all_tasks()
    async with aclosing(runner_of(asking(), small=small).run(asked(items=["a", "b"]))) as events:
        called = set()
        async for event in events:
            if isinstance(event, NodeCalled):
                called.add(event.node)
            if len(called) == 2:
                break
    assert called == {"all[0].each", "all[1].each"}
    assert asyncio.all_tasks() == before
    status = await small.engine.status()
    assert (status.running, status.aborted) == (0, 2)


async def test_the_deadline_names_what_ran_inside():
    small = generator("small", FakeScript(first_token_s=30))
    last = await failed(runner_of(asking(), small=small), asked(timeout_s=1.5, items=["a", "b"]))
    assert last.failure.kind == "DeadlineExceeded"
    assert last.node in ("all[0].each", "all[1].each")


async def test_text_streams_out_of_bodies():
    inside = body(
        node("say", Llm(model="small", stream=True), prompt="${item.value}", history=[]), text="${say.text}"
    )
    made = plan(node("all", Map(), {"body": inside}, over=["a"]), all="${all.text}")
    events = await events_of(runner_of(made), asked(stream=True))
    text = "".join(
        event.text for event in events if isinstance(event, NodeDelta) and event.node == "all[0].say"
    )
    assert [text] == events[-1].outputs["all"] != [""]


async def test_a_bug_inside_a_body_is_a_bug(caplog):
    class Broken(Shelf):
        def search(self, vector, top_k):
            raise ZeroDivisionError

    inside = body(FIND, hits="${find.documents}")
    made = plan(node("all", Map(), {"body": inside}, over=[1]), all="${all.hits}")
    last = await failed(Runner([made], Resources(pools(), {"manual": Broken()})), asked())
    assert (last.failure.kind, last.node) == ("RunError", "all[0].find")
    assert "ZeroDivisionError" in caplog.text


async def test_a_reader_that_is_slow_holds_bodies_back():
    shelf = Shelf()
    inside = body(FIND, hits="${find.documents}")
    made = plan(
        node("all", Map(max_items=5000), {"body": inside}, over=list(range(5000))), hits="${all.hits}"
    )
    async with aclosing(Runner([made], Resources(pools(), {"manual": shelf})).run(asked())) as events:
        await anext(events)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert 0 < len(shelf.searched) < 500
        rest = [event async for event in events]
    assert len(rest[-1].outputs["hits"]) == 5000


class Big(str):
    """A text that can be watched."""


async def test_values_inside_a_body_are_let_go_when_it_is_done(monkeypatch):
    made: list[weakref.ref[Big]] = []
    alive: list[int] = []

    class Watched(Shelf):
        def search(self, vector, top_k):
            found = super().search(vector, top_k)
            text = Big("x")
            made.append(weakref.ref(text))
            gc.collect()
            alive.append(sum(ref() is not None for ref in made))
            return [text, *found]

    count = node("count", Prompt(template="{{ hits | length }}"), hits="${find.documents}")
    inside = body(FIND, count, n="${count.text}")
    mapped = plan(node("all", Map(max_concurrency=1), {"body": inside}, over=list(range(10))), n="${all.n}")
    last = await finished(Runner([mapped], Resources(pools(), {"manual": Watched()})), asked())
    assert last.outputs == {"n": ["2"] * 10}
    assert max(alive) <= 2


async def test_a_captured_value_is_kept_until_its_container_is_done():
    """Two bodies one after the other look at the same value, which nobody else needs."""
    both = body(node("x", Prompt(template="{{ a }}"), a="${made.value}"), x="${x.text}")
    made = node("made", Value(), value=["${inputs.q}"])
    looped = node("again", Loop(max_iterations=3), {"body": both})
    assert await outputs_of(plan(made, looped, inputs=("q",), x="${again.x}"), q="hi") == {"x": "['hi']"}


class Crowd:
    """A pool that keeps calls waiting as long as more of them come."""

    def __init__(self) -> None:
        self._pool = generator("small")
        self.info = self._pool.info
        self.count_tokens = self._pool.count_tokens
        self.running = self.most = 0

    async def generate(self, call):
        self.running += 1
        self.most = max(self.most, self.running)
        seen = 0
        while seen < self.running:
            seen = self.running
            for _ in range(50):
                await asyncio.sleep(0)
        self.running -= 1
        async for batch in self._pool.generate(call):
            yield batch


async def test_maps_in_maps_do_not_multiply_without_bound(monkeypatch):
    inside = body(node("ask", SMALL, prompt="${item3}", history=[]), text="${ask.text}")
    for depth in (3, 2, 1):
        over = "${inputs.items}" if depth == 1 else f"${{item{depth - 1}}}"
        last = node(f"m{depth}", Map(as_=f"item{depth}", max_concurrency=5), {"body": inside}, over=over)
        inside = body(last, text=f"${{m{depth}.text}}")
    made = plan(last, inputs=("items",), text="${m1.text}")
    items = [[[f"{i}{j}{k}" for k in range(5)] for j in range(5)] for i in range(5)]
    free = Crowd()
    expected = await finished(runner_of(made, small=free), asked(items=items))
    monkeypatch.setattr(run, "MAX_BODIES_BESIDE", 7)
    bound = Crowd()
    ended = await finished(runner_of(made, small=bound), asked(items=items))
    assert (ended.outputs, ended.usage) == (expected.outputs, expected.usage)
    assert free.most == 125
    assert 1 <= bound.most <= 8
