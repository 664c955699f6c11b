"""The compiler and the executor together give what a reference interpreter of a few lines gives."""

import asyncio
from collections.abc import Mapping

import cel
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.engines.fake import FakeScript
from cluster.messages import Delta, Generate, Message, Sampling
from graphs.bindings import Ref
from graphs.conditions import references_of
from graphs.nodes.agent import Agent
from graphs.nodes.branch import Branch
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.nodes.router import Router
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Node, NodeId, Pipeline, Policies
from graphs.templates import PromptTemplate
from runtime.compiler.compile import compile_pipeline, stages
from runtime.compiler.lower import lower
from runtime.compiler.passes.assign import assign
from runtime.compiler.passes.order import order
from runtime.events import NodeCalled, NodeFinished, NodeSkipped, NodeStarted, RunFinished, Tally
from runtime.executor.kinds.kind import Resources
from runtime.plan import ExecutionPlan
from runtime.runner import Runner
from tests.graphs.shapes import pipelines
from tests.runtime.compiler.random_bodies import bodied
from tests.runtime.looking import ABSENT, Values, look
from tests.runtime.parts import events_of, finished, pools, request


async def interpret(pipeline: Pipeline, inputs: dict[str, object], models) -> dict[str, object]:
    """One node after the other, straight from the pipeline."""
    given = {Ref("inputs", name): inputs.get(name, port.default) for name, port in pipeline.inputs.items()}
    values = await fill(pipeline.nodes, given, models)
    return {name: look(ref, values) for name, ref in pipeline.outputs.items()}


async def fill(nodes: Mapping[NodeId, Node], values: Values, models) -> Values:
    """The values, and those that the nodes add."""
    values, waiting = dict(values), dict(nodes)
    while waiting:
        name = next(name for name, node in waiting.items() if all(ref in values for ref in node.references()))
        node = waiting.pop(name)
        inputs = {port: look(binding, values) for port, binding in node.inputs.items()}
        if any(values.get(each) is ABSENT for each in node.inputs.values() if isinstance(each, Ref)) or not (
            holds(node.when, values)
        ):
            outputs = dict.fromkeys(node.ports(), ABSENT)
        else:
            outputs = dict.fromkeys(node.ports()) | await run(node, inputs, values, models)
        values |= {Ref(name, port): value for port, value in outputs.items()}
    return values


def holds(condition: str | None, values: Values) -> bool:
    named: dict[str, dict[str, object]] = {}
    for ref in references_of(condition):
        named.setdefault(ref.owner, {})[ref.port] = look(ref, values)
    return condition is None or cel.evaluate(condition, named)


async def run(  # noqa: C901 - a case for each kind
    node: Node, given: dict[str, object], values: Values, models
) -> dict[str, object]:
    """What the node gives."""

    async def inside(key: str, **owners: dict[str, object]) -> tuple[dict[str, object], Values]:
        body = node.bodies[key]
        told = {Ref(owner, port): value for owner, ports in owners.items() for port, value in ports.items()}
        seen = await fill(body.nodes, told if node.spec.closed else values | told, models)
        return {name: look(binding, seen) for name, binding in body.outputs.items()}, seen

    match node.spec:
        case Prompt(template=template):
            return {"text": PromptTemplate(template).render(given)}
        case Llm() as spec:
            return {"text": await ask(spec, given["prompt"], models)}
        case Map(as_=name):
            each = [
                (await inside("body", **{name: {"value": item, "index": index}}))[0]
                for index, item in enumerate(given["over"])
            ]
            return {port: [outputs[port] for outputs in each] for port in node.bodies["body"].outputs}
        case Branch():
            for key, body in node.bodies.items():
                if holds(body.when, values):
                    return (await inside(key))[0]
            return {}
        case Loop(as_=name, max_iterations=most):
            state, passes, ended, outputs = dict(given), 0, False, {}
            while passes < most and not ended:
                outputs, seen = await inside("body", **{name: state | {"iteration": passes}})
                until = node.bodies["body"].until
                passes, ended = passes + 1, until is not None and holds(until, seen)
                state = {key: outputs.get(key, value) for key, value in state.items()}
            return outputs | state | {"iterations": passes}
        case Subgraph():
            return (await inside("body", inputs=given))[0]
        case Router(choices=choices):
            first = next(iter(choices))  # the fake takes the first of what it may say
            return (await inside(first))[0] | {"choice": first}
        case Agent(max_steps=most):
            # The fake calls the tool with the least that fits until it has to answer.
            step = {"tool": "look", "arguments": {"q": "x"}}
            results = [(await inside("look", args={"q": "x"}))[0] for _ in range(most - 1)]
            return {"text": "x", "steps": [step | {"result": result} for result in results]}
        case _:
            return {"value": given["value"]}


async def ask(spec: Llm, prompt: str, models) -> str:
    sampling = Sampling(temperature=spec.temperature)
    call = Generate("x", spec.model, spec.max_tokens, 1e12, [Message("user", prompt)], sampling=sampling)
    batches = [batch async for batch in models[spec.model].generate(call)]
    return "".join(event.text for batch in batches for event in batch if isinstance(event, Delta))


def unoptimised(pipeline: Pipeline) -> ExecutionPlan:
    """The plan with only back ends assigned."""
    return lower(order(assign(stages(pipeline)["resolve"])))


INPUTS = {"question": "why", "level": "a", "list": ["one", "two"]}


@given(pipelines() | bodied(), st.booleans())
@settings(deadline=None, max_examples=300)
def test_same_outputs_as_the_reference(pipeline, speculate):
    pipeline = msgspec.structs.replace(pipeline, policies=Policies(speculate=speculate))
    inputs = {name: value for name, value in INPUTS.items() if name in pipeline.inputs}

    async def both():
        models = pools(small=FakeScript(output_tokens=3), large=FakeScript(output_tokens=2))
        expected = await interpret(pipeline, inputs, models)
        runner = Runner([compile_pipeline(pipeline)], Resources(models))
        return expected, (await finished(runner, request(pipeline, inputs=inputs))).outputs

    expected, outputs = asyncio.run(both())
    assert msgspec.json.encode(outputs, order="sorted") == msgspec.json.encode(expected, order="sorted")


@given(pipelines())
@settings(deadline=None, max_examples=50)
def test_optimising_changes_no_output(pipeline):

    async def run(plan):
        return (await finished(Runner([plan], Resources(pools())), request(pipeline))).outputs

    assert asyncio.run(run(unoptimised(pipeline))) == asyncio.run(run(compile_pipeline(pipeline)))


@given(pipelines())
@settings(deadline=None, max_examples=50)
def test_events_tell_the_whole_story(pipeline):
    plan = compile_pipeline(pipeline)
    events = asyncio.run(events_of(Runner([plan], Resources(pools())), request(pipeline, stream=True)))
    names = [node.name for step in plan.steps for node in step.nodes]
    started = [event.node for event in events if isinstance(event, NodeStarted)]
    skipped = [event.node for event in events if isinstance(event, NodeSkipped)]
    assert sorted([*started, *skipped]) == sorted(names)
    assert sorted(event.node for event in events if isinstance(event, NodeFinished)) == sorted(started)
    assert [isinstance(event, RunFinished) for event in events] == [False] * (len(events) - 1) + [True]
    for name in started:
        assert _index(events, NodeStarted, name) < _index(events, NodeFinished, name)
    for step in plan.steps:
        for needed in step.depends_on:
            ended = _index(events, NodeFinished | NodeSkipped, needed)
            assert ended < _index(events, NodeStarted | NodeSkipped, step.nodes[0].name)


def _index(events, kind, name):
    return next(i for i, event in enumerate(events) if isinstance(event, kind) and event.node == name)


@given(bodied())
@settings(deadline=None, max_examples=50)
def test_events_of_nodes_inside_others_lie_between_those_of_the_others(pipeline):
    """As long as the compiler has moved none out of where it was written."""
    runner = Runner([unoptimised(pipeline)], Resources(pools()))
    events = asyncio.run(events_of(runner, request(pipeline, inputs=INPUTS)))
    starts = {event.node: at for at, event in enumerate(events) if isinstance(event, NodeStarted)}
    ends = {event.node: at for at, event in enumerate(events) if isinstance(event, NodeFinished)}
    assert len(starts) == len([event for event in events if isinstance(event, NodeStarted)])
    assert starts.keys() == ends.keys()
    for path, start in starts.items():
        around = [other for other in starts if path.startswith((f"{other}.", f"{other}["))]
        assert all(starts[other] < start < ends[path] < ends[other] for other in around)
    calls = [event.node for event in events if isinstance(event, NodeCalled)]
    owing = [event.node for event in events if isinstance(event, NodeFinished) and event.usage is not None]
    assert sorted(set(calls)) == sorted(owing)
    tally = Tally()
    for event in events[:-1]:
        tally.add(event)
    assert tally.usage == events[-1].usage
