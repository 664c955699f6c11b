"""The compiler and the executor together give what a reference interpreter of a few lines gives."""

import asyncio
import contextlib

import cel
import msgspec
from hypothesis import given, settings

from cluster.engines.fake import FakeScript
from cluster.messages import Delta, Generate, Message, Sampling
from graphs.bindings import Items, Literal, Record, Ref
from graphs.conditions import references_of
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.pipeline import Pipeline
from graphs.templates import PromptTemplate
from runtime.compiler.compile import compile_pipeline, stages
from runtime.compiler.lower import lower
from runtime.compiler.passes.assign import assign
from runtime.compiler.passes.order import order
from runtime.events import NodeFinished, NodeSkipped, NodeStarted, RunFinished
from runtime.runner import Runner
from tests.graphs.shapes import pipelines
from tests.runtime.parts import events_of, finished, pools, request

ABSENT = object()


async def interpret(pipeline: Pipeline, inputs: dict[str, object], models) -> dict[str, object]:
    """One node after the other, straight from the pipeline."""
    values = {Ref("inputs", name): inputs.get(name, port.default) for name, port in pipeline.inputs.items()}

    def look(binding, direct=False):
        match binding:
            case Literal(value=value):
                return value
            case Ref():
                return None if values[binding] is ABSENT and not direct else values[binding]
            case Items(items=items):
                return [look(item) for item in items]
            case Record(fields=fields):
                return {name: look(item) for name, item in fields.items()}

    waiting = dict(pipeline.nodes)
    while waiting:
        for name, node in list(waiting.items()):
            with contextlib.suppress(KeyError):
                direct = {port: look(binding, True) for port, binding in node.inputs.items()}
                given = {port: look(binding) for port, binding in node.inputs.items()}
                (port, *_) = node.spec.outputs({})
                skipped = ABSENT in direct.values() or not holds(node.when, look)
                values[Ref(name, port)] = ABSENT if skipped else await run(node.spec, given, models)
                del waiting[name]
    return {name: look(ref) for name, ref in pipeline.outputs.items()}


def holds(condition: str | None, look) -> bool:
    named: dict[str, dict[str, object]] = {}
    for ref in references_of(condition):
        named.setdefault(ref.owner, {})[ref.port] = look(ref)
    return condition is None or cel.evaluate(condition, named)


async def run(spec, given: dict[str, object], models) -> object:
    """The first output of a node."""
    if isinstance(spec, Prompt):
        return PromptTemplate(spec.template).render(given)
    return await ask(spec, given["prompt"], models) if isinstance(spec, Llm) else given["value"]


async def ask(spec: Llm, prompt: str, models) -> str:
    sampling = Sampling(temperature=spec.temperature)
    call = Generate("x", spec.model, spec.max_tokens, 1e12, [Message("user", prompt)], sampling=sampling)
    batches = [batch async for batch in models[spec.model].generate(call)]
    return "".join(event.text for batch in batches for event in batch if isinstance(event, Delta))


@given(pipelines())
@settings(deadline=None)
def test_same_outputs_as_the_reference(pipeline):
    async def both():
        models = pools(small=FakeScript(output_tokens=3), large=FakeScript(output_tokens=2))
        expected = await interpret(pipeline, {"question": "why"}, models)
        runner = Runner([compile_pipeline(pipeline)], models)
        return expected, (await finished(runner, request(pipeline))).outputs

    expected, outputs = asyncio.run(both())
    assert msgspec.json.encode(outputs, order="sorted") == msgspec.json.encode(expected, order="sorted")


@given(pipelines())
@settings(deadline=None, max_examples=50)
def test_optimising_changes_no_output(pipeline):
    """The plan with only back ends assigned against the plan with every stage."""
    plain = stages(pipeline)
    unoptimised = lower(order(assign(plain["resolve"])))

    async def run(plan):
        return (await finished(Runner([plan], pools()), request(pipeline))).outputs

    assert asyncio.run(run(unoptimised)) == asyncio.run(run(compile_pipeline(pipeline)))


@given(pipelines())
@settings(deadline=None, max_examples=50)
def test_events_tell_the_whole_story(pipeline):
    plan = compile_pipeline(pipeline)
    events = asyncio.run(events_of(Runner([plan], pools()), request(pipeline, stream=True)))
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
