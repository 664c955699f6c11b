"""Nodes that read a list while another makes it."""

import asyncio
import threading
from contextlib import aclosing

import msgspec
import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Delta, Failure, Finish, Usage
from graphs.bindings import Ref
from graphs.functions import spec_of
from graphs.nodes.llm import Llm
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Fallback, Node, Pipeline, Retry
from graphs.ports import STRING, Port, list_of
from graphs.sentences import split
from runtime.compiler.compile import compile_pipeline
from runtime.durability.model import Checkpoint
from runtime.events import NodeFailed, NodeFinished, NodeStarted, RunFailed, RunFinished
from runtime.executor.kinds.kind import Resources
from runtime.executor.loop import execute
from runtime.executor.prepare import prepare
from runtime.executor.progress import Progress
from runtime.executor.queue import EventQueue
from runtime.executor.run import Run, RunScope
from runtime.executor.streams import MAX_AHEAD
from runtime.runner import Runner
from tests.runtime.compiler.bodies import PURE, body, looped, mapped, node, pipeline, prompt, value
from tests.runtime.parts import events_of, failed, finished, generator, pools, request

COUNT = 3 * MAX_AHEAD
TEXT = " ".join(f"Sentence number {place} is this." for place in range(COUNT))
DRAFT = Llm(model="small", max_tokens=1_000, max_prompt_tokens=8192, temperature=0.0)
SCRIPT = FakeScript(rules=[Rule(contains="why", reply=TEXT)])
INPUTS = {"question": "why", "list": ["one", "two"], "level": "a"}


def given(name: str, **inputs) -> Node:
    return node(spec_of(f"tests.graphs.sample_functions:{name}"), **inputs)


def checked(**settings) -> Pipeline:
    """draft ~► check: map (each sentence ─► ask ─► each)"""
    inner = body(
        {"ask": prompt("{{ s }}", s="${item.value}"), "each": node(PURE, prompt="${ask.text}")},
        said="${ask.text}",
        text="${each.text}",
    )
    return pipeline(
        {
            "draft": node(DRAFT, prompt="${inputs.question}"),
            "check": mapped("${draft.sentences}", inner, max_concurrency=2, **settings),
        },
        text="${draft.text}",
        said="${check.said}",
        answers="${check.text}",
    )


def runner(made: Pipeline, script: FakeScript = SCRIPT, **models) -> Runner:
    return Runner([compile_pipeline(made)], Resources(pools(small=script) | models))


def asked(made: Pipeline, **fields):
    return request(made, **({"inputs": INPUTS} | fields))


def place(events, kind, name: str) -> int:
    """Of the first event of a kind that is about a node."""
    return next(index for index, each in enumerate(events) if isinstance(each, kind) and each.node == name)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_item_begins_before_the_last_is_made(stream):
    made = checked()
    events = await events_of(runner(made), asked(made, stream=stream))
    last = events[-1]
    assert isinstance(last, RunFinished), last
    assert place(events, NodeFinished, "check[0].each") < place(events, NodeFinished, "draft")
    assert last.outputs["text"] == TEXT
    assert last.outputs["said"] == split(TEXT)
    assert not any("delta" in type(each).__name__.lower() for each in events)


async def test_the_engine_is_slowed_down_by_whoever_reads():
    """The map is at its first two items, and the draft some further, but not at its end."""
    hold = asyncio.Event()
    started = []

    class Held:
        def __init__(self) -> None:
            self._pool = generator("large")
            self.info, self.count_tokens = self._pool.info, self._pool.count_tokens

        async def generate(self, call):
            started.append(call)
            await hold.wait()
            async for batch in self._pool.generate(call):
                yield batch

    made = checked()
    large = msgspec.structs.replace(PURE, model="large")
    check = made.nodes["check"]
    inner = check.bodies["body"]
    asks = node(large, prompt="${ask.text}")
    check = msgspec.structs.replace(
        check, bodies={"body": msgspec.structs.replace(inner, nodes=inner.nodes | {"each": asks})}
    )
    made = msgspec.structs.replace(made, nodes=made.nodes | {"check": check})
    seen = []
    async with aclosing(runner(made, large=Held()).run(asked(made))) as events:
        async for event in events:
            seen.append(event)
            if len(started) == 2 and not hold.is_set():
                for _ in range(500):
                    await asyncio.sleep(0)
                assert len(started) == 2
                hold.set()
    assert isinstance(seen[-1], RunFinished)
    assert place(seen, NodeFinished, "check[0].each") < place(seen, NodeFinished, "draft")


async def test_who_takes_more_than_the_list_waits():
    inner = body({"ask": prompt("{{ s }} {{ t }}", s="${item}", t="${draft.text}")}, said="${ask.text}")
    made = pipeline(
        {
            "draft": node(DRAFT, prompt="${inputs.question}"),
            "check": mapped("${draft.sentences}", inner),
        },
        said="${check.said}",
    )
    events = await events_of(runner(made), asked(made))
    assert place(events, NodeStarted, "check") > place(events, NodeFinished, "draft")
    assert events[-1].outputs["said"] == [f"{each} {TEXT}" for each in split(TEXT)]


class OutOfOrder:
    """A pool whose answers come to their ends the last first."""

    def __init__(self) -> None:
        self._pool = generator("large")
        self.info, self.count_tokens = self._pool.info, self._pool.count_tokens
        self.streamed = None
        self.hold = asyncio.Event()

    async def generate(self, call):
        self.streamed = call.stream
        for index in reversed(range(call.sampling.n)):
            yield [Delta(f"answer {index}", index)]
        for index in (2, 0):
            yield [Finish("stop", index)]
        await self.hold.wait()
        yield [Finish("stop", 1), Usage(1, 6)]


async def test_each_of_several_answers_is_read_when_it_is_whole_and_those_before_it_are():
    several = Llm(model="large", n=3, max_tokens=8)
    inner = body({"ask": prompt("{{ s }}!", s="${item}")}, s="${ask.text}")
    made = pipeline(
        {"expand": node(several, prompt="why"), "search": mapped("${expand.texts}", inner)}, s="${search.s}"
    )
    pool = OutOfOrder()
    seen = []
    async with aclosing(runner(made, large=pool).run(asked(made))) as events:
        async for event in events:
            seen.append(event)
            if isinstance(event, NodeFinished) and event.node == "search[0].ask":
                pool.hold.set()
    assert pool.streamed
    assert place(seen, NodeFinished, "search[0].ask") < place(seen, NodeFinished, "expand")
    assert place(seen, NodeStarted, "search[2].ask") > place(seen, NodeStarted, "search[1].ask")
    assert seen[-1].outputs["s"] == ["answer 0!", "answer 1!", "answer 2!"]


async def test_maps_of_maps_are_read_while_they_are_made():
    again = body({"ask": prompt("again {{ s }}", s="${item}")}, said="${ask.text}")
    made = checked()
    made = msgspec.structs.replace(
        made,
        nodes=made.nodes | {"again": mapped("${check.said}", again)},
        outputs={"said": Ref("again", "said")},
    )
    events = await events_of(runner(made), asked(made))
    assert place(events, NodeFinished, "again[0].ask") < place(events, NodeFinished, "check")
    assert events[-1].outputs["said"] == [f"again {each}" for each in split(TEXT)]


async def test_results_in_the_order_in_which_they_are_completed():
    """The first item waits for the second."""
    turn = asyncio.Event()

    class Turned(OutOfOrder):
        async def generate(self, call):
            if call.messages[-1].content == "one":
                await turn.wait()
            async for batch in self._pool.generate(call):
                yield batch
            turn.set()

    large = msgspec.structs.replace(PURE, model="large")
    inner = body({"e": node(large, prompt="${item}")}, at="${item.index}", text="${e.text}")
    for order, at in (("completed", [1, 0]), ("items", [0, 1])):
        turn.clear()
        made = pipeline({"m": mapped("${inputs.list}", inner, order=order)}, at="${m.at}", text="${m.text}")
        outputs = (await finished(runner(made, large=Turned()), asked(made))).outputs
        assert outputs["at"] == at
        assert len(set(outputs["text"])) == 2


async def test_generators_and_functions_that_read():
    made = pipeline(
        {
            "count": given("count_up", to=COUNT),
            "double": given("doubled", numbers="${count.value}"),
            "add": given("added", numbers="${double.value}"),
            "three": given("doubled", numbers="${count.value}", most=3),
            "letters": given("letters", text="abc"),
            "constant": given("added", numbers=[1, 2]),
        },
        double="${double.value}",
        add="${add.value}",
        three="${three.value}",
        letters="${letters.value}",
        constant="${constant.value}",
    )
    events = await events_of(runner(made), asked(made))
    doubled = [2 * number for number in range(COUNT)]
    assert events[-1].outputs == {
        "double": doubled,
        "add": sum(doubled),
        "three": [0, 2, 4],
        "letters": ["a", "b", "c"],
        "constant": 3,
    }
    assert place(events, NodeStarted, "add") < place(events, NodeFinished, "count")


async def test_a_reader_that_has_had_enough_holds_nobody_up():
    made = pipeline(
        {
            "draft": node(DRAFT, prompt="${inputs.question}"),
            "first": given("first_of", texts="${draft.sentences}"),
        },
        first="${first.value}",
        text="${draft.text}",
    )
    events = await events_of(runner(made), asked(made))
    assert place(events, NodeFinished, "first") < place(events, NodeFinished, "draft")
    assert events[-1].outputs == {"first": split(TEXT)[0], "text": TEXT}


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("breaks", {"at": 3}, "breaks failed: ValueError: broken"),
        ("yields_texts", {}, "does not fit: 'a' is not of type 'integer'"),
        ("endless", {}, "yields more than 10000 items"),
    ],
)
async def test_what_is_wrong_with_a_generator(name, inputs, message):
    made = pipeline(
        {"make": given(name, **inputs), "add": given("added", numbers="${make.value}")}, add="${add.value}"
    )
    last = await failed(runner(made), asked(made))
    assert last.node == "make"
    assert message in last.failure.message


def breaking(after: int) -> FakeScript:
    failure = Failure("ModelUnavailable", "gone")
    return FakeScript(rules=[Rule(contains="why", reply=TEXT, failure=failure, failure_after=after)])


async def test_a_maker_that_fails_ends_those_that_read():
    made = checked()
    events = await events_of(runner(made, breaking(100)), asked(made))
    last = events[-1]
    assert isinstance(last, RunFailed)
    assert (last.node, last.failure.message) == ("draft", "gone")
    assert place(events, NodeFinished, "check[0].each") < place(events, NodeFailed, "draft")
    assert [each.node for each in events if isinstance(each, NodeFailed)] == ["draft"]


async def test_a_reader_that_fails_ends_the_maker():
    made = checked(max_items=5)
    small = generator("small", SCRIPT)
    last = await failed(runner(made, small=small), asked(made))
    assert (last.node, last.failure.message) == ("check", "there are more items than max_items, 5")
    assert (await small.engine.status()).running == 0
    assert (await small.engine.status()).aborted >= 1


@pytest.mark.parametrize(("after", "again"), [(0, True), (2, True), (100, False)])
async def test_a_maker_is_tried_again_until_an_item_was_read(after, again):
    made = checked()
    draft = msgspec.structs.replace(
        made.nodes["draft"], retry=Retry(2), fallback=(Fallback(value="Other. Text."),)
    )
    made = msgspec.structs.replace(made, nodes=made.nodes | {"draft": draft})
    last = (await events_of(runner(made, breaking(after)), asked(made)))[-1]
    if again:
        assert isinstance(last, RunFinished)
        assert last.outputs["said"] == ["Other. ", "Text."]
    else:
        assert isinstance(last, RunFailed)
        assert last.node == "draft"


async def test_a_run_that_is_left_ends_makers_and_readers():
    made = checked()
    small = generator("small", FakeScript(rules=SCRIPT.rules, token_s=0.05))
    async with aclosing(runner(made, small=small).run(asked(made))) as events:
        async for event in events:
            if isinstance(event, NodeStarted) and event.node == "check[0].each":
                break
    assert (await small.engine.status()).running == 0


async def test_a_thread_that_makes_items_ends_with_the_run():
    made = pipeline(
        {"make": given("endless"), "add": given("added", numbers="${make.value}")}, add="${add.value}"
    )
    async with aclosing(runner(made).run(asked(made))) as events:
        async for event in events:
            if isinstance(event, NodeStarted) and event.node == "add":
                break
    assert threading.active_count() < 50


def inside(kind: str) -> Pipeline:
    """The sentences are read inside a node: a loop, a subgraph that takes them, or one that gives them."""
    each = {"ask": prompt("<{{ s }}>", s="${item}")}
    draft = node(DRAFT, prompt="${inputs.question}")
    check = mapped("${draft.sentences}", body(each, said="${ask.text}"))
    if kind == "loop":
        each = {"ask": prompt("<{{ s }}>{{ n }}", s="${item}", n="${state.n}")}
        check = mapped("${draft.sentences}", body(each, said="${ask.text}"))
        inner = body({"check": check, "next": value("${state.n}")}, said="${check.said}", n="${next.value}")
        nodes = {"draft": draft, "hold": looped(inner, max_iterations=2, n="")}
    else:
        spec = Subgraph("other", {"texts": Port(list_of(STRING))})
        read = body(
            {"check": mapped("${inputs.texts}", body(each, said="${ask.text}"))}, said="${check.said}"
        )
        hold = node(spec, bodies={"body": read}, texts="${draft.sentences}")
        if kind == "kept apart":
            hold = msgspec.structs.replace(hold, timeout_s=60.0)
        nodes = {"draft": draft, "hold": hold}
    return pipeline(nodes, said="${hold.said}")


@pytest.mark.parametrize("kind", ["loop", "inlined", "kept apart"])
async def test_a_list_is_read_inside_other_nodes(kind):
    made = inside(kind)
    events = await events_of(runner(made), asked(made))
    first = {
        "loop": "hold[0].check[0].ask",
        "inlined": "hold.check[0].ask",
        "kept apart": "hold.check[0].ask",
    }
    assert place(events, NodeFinished, first[kind]) < place(events, NodeFinished, "draft")
    assert events[-1].outputs == {"said": [f"<{each}>" for each in split(TEXT)]}


async def test_a_maker_that_is_skipped_leaves_out_those_that_read():
    made = checked()
    skipped = msgspec.structs.replace(made.nodes["draft"], when="inputs.level == 'b'")
    made = msgspec.structs.replace(
        made, nodes=made.nodes | {"draft": skipped}, defaults=dict.fromkeys(made.outputs)
    )
    assert (await finished(runner(made), asked(made))).outputs == {
        "text": None,
        "said": None,
        "answers": None,
    }


async def kept(made: Pipeline, progress: Progress) -> tuple[dict, dict[str, Checkpoint], list[str]]:
    """The outputs of a run that goes on from `progress`, what it noted, and the nodes that it started."""
    scope = RunScope("run", 2**40, "", 0, False)
    queue = EventQueue()
    body_of = prepare(compile_pipeline(made), Resources(pools(small=SCRIPT)))
    from_ = {each: INPUTS[each.port] for each, _ in body_of.given}
    outputs = await execute(body_of, Run(scope, queue, progress=progress), from_)
    started = [event.node for event in await queue.take() if isinstance(event, NodeStarted)]
    return outputs, {each.path: each for each in progress.take()[0]}, started


async def test_what_was_read_of_a_list_that_is_made_again_is_forgotten():
    made = checked()
    outputs, noted, _ = await kept(made, Progress(keeps=True))
    assert list(noted).index("draft") < list(noted).index("check")
    assert "sentences" not in noted["draft"].outputs
    undone = {path: each for path, each in noted.items() if path not in ("draft", "check")}
    again, _, started = await kept(made, Progress(undone))
    assert again == outputs
    assert "check[0].each" in started


async def test_a_list_that_was_made_before_is_there_at_once():
    made = checked()
    outputs, noted, _ = await kept(made, Progress(keeps=True))
    undone = {path: each for path, each in noted.items() if path not in ("check", "check[1].each")}
    again, _, started = await kept(made, Progress(undone))
    assert again == outputs
    assert "draft" not in started
    assert [path for path in started if path.endswith(".each")] == ["check[1].each"]


@pytest.mark.parametrize("commits", [False, True])
async def test_what_has_effects_waits_for_the_whole_where_it_could_happen_for_nothing(commits):
    made = checked()
    check = msgspec.structs.replace(made.nodes["check"], effects="effectful")
    made = msgspec.structs.replace(made, nodes=made.nodes | {"check": check})
    queue = EventQueue()
    scope = RunScope("run", 2**40, "", 0, False)
    prepared = prepare(compile_pipeline(made), Resources(pools(small=SCRIPT)))
    run = Run(scope, queue, progress=Progress(commits=commits))
    await execute(prepared, run, {each: INPUTS[each.port] for each, _ in prepared.given})
    events = await queue.take()
    late = place(events, NodeStarted, "check") > place(events, NodeFinished, "draft")
    assert late == commits
