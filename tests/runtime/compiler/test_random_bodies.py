"""On random pipelines with bodies: the compiler changes no output, and no name or order changes a plan."""

import asyncio
import dataclasses
import re

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.bindings import Items, Record, Ref
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.pipeline import Body, NodeId, Pipeline
from runtime.compiler.compile import compile_pipeline, stages
from runtime.compiler.draft import inside
from runtime.compiler.lower import lower
from runtime.compiler.passes.assign import assign
from runtime.compiler.passes.order import order
from runtime.executor.kinds.kind import Resources
from runtime.plan import decode_plan, encode_plan
from runtime.runner import Runner
from tests.runtime.compiler.random_bodies import bodied
from tests.runtime.parts import finished, pools, request


@given(bodied(live=True))
@settings(deadline=None)
def test_optimising_changes_no_output(pipeline):
    """The plan with only back ends assigned against the plan with every stage."""
    drafts = stages(pipeline)
    unoptimised = lower(order(assign(drafts["resolve"])))

    async def run(plan, level):
        asked = request(pipeline, inputs={"question": "why", "level": level, "list": ["one", "two"]})
        return (await finished(Runner([plan], Resources(pools())), asked)).outputs

    plan = compile_pipeline(pipeline)
    assert decode_plan(encode_plan(plan)) == plan
    for level in ("a", "b"):
        expected, outputs = asyncio.run(run(unoptimised, level)), asyncio.run(run(plan, level))
        assert msgspec.json.encode(outputs, order="sorted") == msgspec.json.encode(expected, order="sorted")


@given(bodied(live=True))
@settings(deadline=None, max_examples=50)
def test_reading_a_list_while_it_is_made_changes_no_output(pipeline):
    plan = compile_pipeline(pipeline)
    waiting = msgspec.structs.replace(plan, steps=_waiting(plan.steps))

    async def run(made):
        asked = request(pipeline, inputs={"question": "why", "level": "a", "list": ["one", "two"]})
        return (await finished(Runner([made], Resources(pools())), asked)).outputs

    assert asyncio.run(run(plan)) == asyncio.run(run(waiting))


def _waiting(steps):
    """The steps without live edges: each waits for the ends of all."""
    return tuple(
        msgspec.structs.replace(
            step,
            depends_on=tuple(sorted({*step.depends_on, *step.follows})),
            follows=(),
            nodes=tuple(
                msgspec.structs.replace(
                    node,
                    bodies={
                        key: msgspec.structs.replace(body, steps=_waiting(body.steps))
                        for key, body in node.bodies.items()
                    },
                )
                for node in step.nodes
            ),
        )
        for step in steps
    )


def renamed(pipeline: Pipeline) -> Pipeline:
    """The same with other names for nodes, items and states, written in the opposite order."""
    return msgspec.structs.replace(
        pipeline,
        nodes=_scope(pipeline.nodes, {}),
        outputs={name: _binding(ref, pipeline.nodes) for name, ref in reversed(pipeline.outputs.items())},
    )


def _scope(nodes, around):
    names = {**around, **dict.fromkeys(nodes)}
    return {NodeId(f"zz_{name}"): _node(node, names) for name, node in reversed(nodes.items())}


def _node(node, names):
    spec = node.spec
    if isinstance(spec, Map | Loop):
        spec = msgspec.structs.replace(spec, as_=f"zz_{spec.as_}")
    return msgspec.structs.replace(
        node,
        spec=spec,
        inputs={port: _binding(each, names) for port, each in reversed(node.inputs.items())},
        after=tuple(NodeId(f"zz_{other}") for other in reversed(node.after)),
        when=_condition(node.when, names),
        bodies={key: _body(node, key, names) for key in node.bodies},
    )


def _body(node, key, around):
    body = node.bodies[key]
    called = node.spec.locals(key, {}) if isinstance(node.spec, Map | Loop) else {}
    own = {} if node.spec.closed else {**around, **dict.fromkeys(called)}
    names = {**own, **dict.fromkeys(body.nodes)}
    return Body(
        _scope(body.nodes, own),
        {name: _binding(each, names) for name, each in reversed(body.outputs.items())},
        _condition(body.when, around),
        _condition(body.until, names),
    )


def _binding(binding, names):
    match binding:
        case Ref(owner=owner, port=port):
            return Ref(f"zz_{owner}" if owner in names else owner, port)
        case Items(items=items):
            return Items(tuple(_binding(item, names) for item in items))
        case Record(fields=fields):
            return Record({name: _binding(item, names) for name, item in reversed(fields.items())})
        case _:
            return binding


def _condition(text, names):
    def rename(found):
        return f"zz_{found[0]}" if found[1] in names else found[0]

    return text and re.sub(r"\b([a-z]+\d+)\.", rename, text)


@given(bodied(live=True))
@settings(deadline=None)
def test_hash_depends_neither_on_names_nor_on_order(pipeline):
    plan, other = compile_pipeline(pipeline), compile_pipeline(renamed(pipeline))
    assert other.hash == plan.hash
    assert (other.token_bound, other.demand) == (plan.token_bound, plan.demand)


@given(bodied(live=True), st.data())
@settings(deadline=None)
def test_hash_sees_a_change_of_any_call_in_a_body(pipeline, data):
    draft = stages(pipeline)["order"]
    calls = [path for path, node in draft.everything() if isinstance(node.spec, Llm)]
    if calls:
        changed = _slower(draft, data.draw(st.sampled_from(calls)), "")
        assert lower(changed).hash != lower(draft).hash


def _slower(scope, path, begin):
    """The scope with another setting at one node of it."""
    nodes = {}
    for name, node in scope.nodes.items():
        spec = msgspec.structs.replace(node.spec, max_tokens=5) if begin + name == path else node.spec
        bodies = {key: _slower(body, path, inside(begin + name, key)) for key, body in node.bodies.items()}
        nodes[name] = msgspec.structs.replace(node, spec=spec, bodies=bodies)
    return dataclasses.replace(scope, nodes=nodes)
