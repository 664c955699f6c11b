"""The door: runs as a gateway sees them."""

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from cluster.engines.fake import FakeScript, FakeTokenCounter, Rule
from cluster.messages import Failure, Message, Usage
from cluster.pools.local import LocalPool
from graphs.builder import Builder
from graphs.loader import load
from graphs.nodes.llm import Llm
from graphs.pipeline import Policies
from graphs.ports import STRING
from runtime.compiler.compile import compile_pipeline
from runtime.errors import InvalidInputs
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFellBack,
    NodeFinished,
    NodeStarted,
    RunFailed,
    RunFinished,
    RunStarted,
    Tally,
)
from runtime.executor.kinds.kind import Resources
from runtime.request import RunRequest, decode_request, encode_request
from runtime.runner import ChatBinding, Runner, decode_infos, info_of, validate_inputs
from tests.graphs.shapes import chain, diamond, inline_chain, rag
from tests.runtime.parts import Shelf, events_of, failed, finished, make_runner, pools, request

pytestmark = pytest.mark.leaping


async def test_the_events_of_a_streamed_run():
    models = pools(small=FakeScript(output_tokens=3))
    events = await events_of(make_runner(rag(), models), request(rag(), stream=True))
    kinds = [(type(event), getattr(event, "node", None)) for event in events]
    plan = compile_pipeline(rag())
    assert events[0] == RunStarted("run-1", "rag", "0.0.0", plan.hash)
    assert kinds[1:] == [
        (NodeStarted, "vector"),
        (NodeCalled, "vector"),
        (NodeFinished, "vector"),
        (NodeStarted, "search"),
        (NodeFinished, "search"),
        (NodeStarted, "ask"),
        (NodeFinished, "ask"),
        (NodeStarted, "answer"),
        (NodeCalled, "answer"),
        *[(NodeDelta, "answer")] * 3,
        (NodeFinished, "answer"),
        (RunFinished, None),
    ]
    last = events[-1]
    assert "".join(event.text for event in events if isinstance(event, NodeDelta)) == last.outputs["text"]
    assert [source["text"] for source in last.outputs["sources"]] == ["passage 0", "passage 1"]
    assert last.usage == Usage(prompt_tokens=1 + 6, completion_tokens=3)


async def test_outputs_of_nodes_come_only_where_a_stream_is_wanted():
    for stream in (True, False):
        events = await events_of(make_runner(rag()), request(rag(), stream=stream))
        shown = [event.outputs for event in events if isinstance(event, NodeFinished)]
        assert all((outputs is not msgspec.UNSET) is stream for outputs in shown)
        assert any(isinstance(event, NodeDelta) for event in events) is stream


async def test_large_outputs_of_nodes_are_left_out():
    events = await events_of(
        make_runner(chain()), request(chain(), stream=True, inputs={"question": "x" * 20_000})
    )
    shown = {event.node: event.outputs for event in events if isinstance(event, NodeFinished)}
    assert shown["say"] is msgspec.UNSET
    assert shown["answer"] is not msgspec.UNSET


async def test_history_reaches_the_node_that_reads_it():
    history = [Message("user", "one two"), Message("assistant", "three")]
    with_history = await finished(make_runner(rag()), request(rag(), history=history))
    without = await finished(make_runner(rag()), request(rag()))
    assert with_history.usage.prompt_tokens == without.usage.prompt_tokens + 3


async def test_unknown_graph():
    last = await failed(make_runner(chain()), request(chain(), graph="nope"))
    assert (last.failure.kind, last.failure.message) == ("UnknownGraph", "there is no graph nope")
    assert last.usage == Usage()


async def test_bad_inputs_fail_the_run_before_it_starts():
    (only,) = await events_of(make_runner(chain()), request(chain(), inputs={"qestion": "x"}))
    assert isinstance(only, RunFailed)
    assert only.failure.kind == "InvalidInputs"
    assert "question: is required" in only.failure.message


async def test_the_deadline_of_the_request_holds():
    models = pools(small=FakeScript(first_token_s=30))
    last = await failed(make_runner(chain(), models), request(chain(), timeout_s=1.0))
    assert (last.failure.kind, last.node) == ("DeadlineExceeded", "answer")
    assert last.usage == Usage(prompt_tokens=2)
    status = await models["small"].engine.status()
    assert (status.running, status.aborted) == (0, 1)


async def test_the_deadline_holds_where_a_pool_forgets_it():
    class Forgetful(LocalPool):
        async def generate(self, call):
            await asyncio.Event().wait()
            yield []

    small = pools()["small"]
    models = pools() | {"small": Forgetful(small.info, small.engine, FakeTokenCounter())}
    last = await failed(make_runner(chain(), models), request(chain(), timeout_s=1.0))
    assert (last.failure.kind, last.node) == ("DeadlineExceeded", "answer")
    assert last.failure.message == "the run passed its deadline; running: answer"


async def test_the_deadline_of_the_graph_holds():
    b = Builder("x", policies=Policies(deadline_s=0.5, priority="high"))
    b.output("text", b.add("answer", Llm(model="small"), prompt=b.input("question", STRING))["text"])
    models = pools(small=FakeScript(first_token_s=30))
    last = await failed(make_runner(b.build(), models), request(b.build(), timeout_s=60))
    assert last.failure.kind == "DeadlineExceeded"


async def test_a_deadline_that_has_passed():
    last = await failed(make_runner(chain()), request(chain(), timeout_s=-1))
    assert last.failure.kind == "DeadlineExceeded"


async def test_closing_a_run_ends_everything_it_does():
    models = pools(small=FakeScript(first_token_s=30), large=FakeScript(first_token_s=30))
    before = asyncio.all_tasks()
    async with aclosing(make_runner(diamond(), models).run(request(diamond()))) as events:
        called = set()
        async for event in events:
            if isinstance(event, NodeCalled):
                called.add(event.node)
            if called == {"left", "right"}:
                break
    assert asyncio.all_tasks() == before
    for name in ("small", "large"):
        status = await models[name].engine.status()
        assert (status.running, status.aborted) == (0, 1)


async def test_a_reader_that_is_slow_holds_the_engine_back():
    models = pools(small=FakeScript(output_tokens=5000))
    b = Builder("long")
    spec = Llm(model="small", max_tokens=5000, stream=True)
    b.output("text", b.add("answer", spec, prompt=b.input("question", STRING))["text"])
    async with aclosing(make_runner(b.build(), models).run(request(b.build(), stream=True))) as events:
        await anext(events)
        for _ in range(1000):
            await asyncio.sleep(0)
        made = (await models["small"].engine.status()).completion_tokens
        assert 0 < made < 1000
        rest = [event async for event in events]
    assert isinstance(rest[-1], RunFinished)
    assert rest[-1].usage.completion_tokens == 5000


async def test_runs_do_not_touch_each_other():
    runner = make_runner(chain())
    runs = [
        finished(runner, request(chain(), run_id=str(i), inputs={"question": f"number {i}"}))
        for i in range(50)
    ]
    texts = [last.outputs["text"] for last in await asyncio.gather(*runs)]
    alone = [
        (await finished(runner, request(chain(), inputs={"question": f"number {i}"}))).outputs["text"]
        for i in range(50)
    ]
    assert texts == alone


async def test_an_abandoned_run_is_tallied_from_its_events():
    models = pools(small=FakeScript(output_tokens=100, token_s=0.001))
    tally = Tally()
    async with aclosing(make_runner(chain(), models).run(request(chain(), stream=True))) as events:
        async for event in events:
            tally.add(event)
            if isinstance(event, NodeDelta):
                break
    assert tally.usage.prompt_tokens == 2
    assert tally.usage.completion_tokens > 0


WRITTEN = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: written}
inputs: {question: string, texts: "list[string]"}
nodes:
  said:
    map: {over: "${inputs.texts}", as: text, max_concurrency: 2, reduce: {text: join}}
    llm: {model: small, max_tokens: 2, prompt: "{{ question }} {{ text }}"}
    with: {text: "${text}", question: "${inputs.question}"}
    retry: {attempts: 2, on: [overloaded]}
  answer:
    branch:
      - when: size(inputs.texts) > 1
        llm: {model: large, max_tokens: 3, stream: true}
        with: {prompt: "${said.text}"}
        timeout: 20s
        fallback: [{value: I could not find that.}]
      - prompt: {template: "{{ only }}"}
        with: {only: "${said.text}"}
  grow:
    loop:
      max_iterations: 5
      until: state.iteration == 2
      nodes:
        more: {prompt: {template: "{{ text }}!"}, with: {text: "${state.text}"}}
      outputs: {text: "${more.text}"}
    with: {text: "${inputs.question}"}
outputs:
  said: ${said.text}
  grown: ${grow.text}
  text: ${answer.text}
"""


@pytest.mark.parametrize("broken", [False, True])
async def test_a_written_pipeline_with_nodes_inside_nodes(broken):
    pipeline = load(WRITTEN).pipeline
    rules = [Rule(contains="", failure=Failure("EngineFailed", "it broke"))] if broken else []
    runner = make_runner(pipeline, pools(large=FakeScript(rules=rules)))
    asked = request(pipeline, inputs={"question": "why", "texts": ["a", "b", "c"]}, stream=True)
    events = await events_of(runner, asked)
    outputs = events[-1].outputs
    assert [len(text.split()) for text in outputs["said"].split("\n\n")] == [2, 2, 2]
    assert outputs["grown"] == "why!!!"
    fell_back = [event.node for event in events if isinstance(event, NodeFellBack)]
    assert fell_back == (["answer.0.step"] if broken else [])
    deltas = [event for event in events if isinstance(event, NodeDelta)]
    assert {event.node for event in deltas} == (set() if broken else {"answer.0.step"})
    told = "I could not find that." if broken else "".join(event.text for event in deltas)
    assert outputs["text"] == told
    started = {event.node for event in events if isinstance(event, NodeStarted)}
    assert {"said[0].each", "said[1].each", "said[2].each", "grow[2].more"} <= started


def test_a_plan_that_names_what_is_not_there_is_refused():
    with pytest.raises(KeyError, match="embedder"):
        Runner(
            [compile_pipeline(rag())],
            Resources({name: pool for name, pool in pools().items() if name != "embedder"}),
        )


def test_info():
    info = info_of(compile_pipeline(rag()))
    assert (info.name, info.version, info.token_bound) == ("rag", "0.0.0", 1408)
    assert info.models == ["embedder", "small"]
    assert info.reads_history
    assert info.durability == "none"
    assert info.chat == ChatBinding("question", "text", "answer")
    assert info.inputs["required"] == ["question"]
    assert info.inputs["properties"]["top_k"] == {"type": "integer", "minimum": 1, "maximum": 5, "default": 2}
    assert info.outputs["properties"]["sources"]["items"]["title"] == "Document"
    assert Runner([compile_pipeline(rag())], Resources(pools(), {"manual": Shelf()})).infos == {"rag": info}
    assert decode_infos(msgspec.msgpack.encode([info])) == [info]


def test_info_says_what_is_kept_where_the_caller_does_not():
    durable = msgspec.structs.replace(rag(), policies=Policies(durability="step"))
    assert info_of(compile_pipeline(durable)).durability == "step"


def test_requests_survive_the_wire():
    asked = RunRequest("r", "g", {"q": [1, None]}, 1.5, "t", 3, [Message("user", "x")], True)
    assert decode_request(encode_request(asked)) == asked


SCHEMA = info_of(compile_pipeline(rag())).inputs


def test_defaults_are_filled_in():
    assert validate_inputs(SCHEMA, {"question": "why"}) == {"question": "why", "top_k": 2}


@pytest.mark.parametrize(
    ("inputs", "problems"),
    [
        ({}, [("question", "is required")]),
        ({"question": 3}, [("question", "3 is not of type 'string'")]),
        (
            {"question": "a", "topk": 1},
            [("topk", "is not an input of this graph; did you mean top_k?")],
        ),
        (
            {"top_k": 9, "x": 1},
            [
                ("question", "is required"),
                ("top_k", "9 is greater than the maximum of 5"),
                ("x", "is not an input of this graph"),
            ],
        ),
    ],
)
def test_every_input_at_fault_is_named(inputs, problems):
    with pytest.raises(InvalidInputs) as refused:
        validate_inputs(SCHEMA, inputs)
    assert [(problem.field, problem.message) for problem in refused.value.problems] == problems
    assert refused.value.param == problems[0][0]


def test_a_refusal_is_bounded():
    with pytest.raises(InvalidInputs) as refused:
        validate_inputs(SCHEMA, {"x" * 1000 + str(i): "y" * 1000 for i in range(1000)})
    assert len(str(refused.value)) < 5000


def test_places_inside_an_input_are_named():
    schema = {
        "properties": {"a": {"type": "array", "items": {"type": "object", "required": ["id"]}}},
        "required": [],
    }
    with pytest.raises(InvalidInputs) as refused:
        validate_inputs(schema, {"a": [{"id": 1}, 3]})
    assert [problem.field for problem in refused.value.problems] == ["a.1"]


async def test_a_run_that_is_done_cannot_be_cancelled_any_more():
    runner = make_runner(inline_chain())
    async with aclosing(runner.run(request(inline_chain(), tenant="acme"))) as run:
        await anext(run)
        for _ in range(100):
            await asyncio.sleep(0)  # its outputs are there, and nobody has read them
        assert not runner.cancel("acme", "run-1")
        assert isinstance([event async for event in run][-1], RunFinished)


async def test_a_cancelled_run_ends_its_calls():
    models = pools(small=FakeScript(first_token_s=60))
    runner = make_runner(rag(), models)
    events = []
    async with aclosing(runner.run(request(rag(), tenant="acme"))) as run:
        async for event in run:
            events.append(event)
            if isinstance(event, NodeCalled) and event.node == "answer":
                assert runner.running == [("acme", "run-1")]
                assert not runner.cancel("rivals", "run-1")
                assert not runner.cancel("acme", "run-2")
                assert runner.cancel("acme", "run-1")
                assert not runner.cancel("acme", "run-1")
    last = events[-1]
    assert isinstance(last, RunFailed)
    assert (last.failure.kind, last.node) == ("RunCancelled", "answer")
    assert last.failure.message == "the run was cancelled; running: answer"
    assert last.usage.prompt_tokens > 0
    assert (await models["small"].engine.status()).running == 0
    assert runner.running == []


class Watched:
    """A witness of one run."""

    def __init__(self):
        self.events = []

    def watch(self, request):
        self.asked = request
        return self.events.append


async def test_a_witness_sees_the_end_that_a_reader_who_left_does_not():
    watched = Watched()
    runner = Runner(
        [compile_pipeline(rag())],
        Resources(pools(small=FakeScript(first_token_s=60)), {"manual": Shelf()}),
        watched,
    )
    async with aclosing(runner.run(request(rag()))) as run:
        async for event in run:
            if isinstance(event, NodeStarted):
                break
    assert watched.asked.run_id == "run-1"
    assert isinstance(watched.events[0], RunStarted)
    assert isinstance(watched.events[-1], RunFailed)
    assert watched.events[-1].failure.kind == "RunCancelled"


async def test_runs_are_counted_while_they_go_on_and_when_they_are_over():
    runner = make_runner(chain())
    seen = [runner.counts() async for _ in runner.run(request(chain()))]
    counts = runner.counts()
    assert (seen[0]["begun chain"], seen[0]["running chain"], seen[0]["ended"]) == (1, 1, 0)
    assert (counts["begun chain"], counts["running chain"], counts["ended"]) == (1, 0, 1)
    assert counts["seconds"] > 0
