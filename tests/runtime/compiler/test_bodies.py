"""Nodes inside nodes, through the whole compiler."""

import msgspec
import pytest

from cluster.interface import ModelInfo
from graphs.errors import PipelineError
from graphs.pipeline import Fallback, Retry
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline, compile_until
from runtime.plan import Demand
from tests.growth import calls_of
from tests.runtime.compiler.bodies import (
    EMBED,
    PURE,
    SAMPLING,
    body,
    branched,
    looped,
    mapped,
    node,
    pipeline,
    prompt,
    search,
    value,
)


def test_a_body_is_planned_like_a_plan():
    (search_step, *_) = compile_pipeline(search()).steps
    assert (search_step.backend, search_step.depends_on) == ("task", ())
    (node,) = search_step.nodes
    planned = node.bodies["body"]
    assert [(step.id, step.backend, step.pool, step.depends_on) for step in planned.steps] == [
        ("ask", "inline", None, ()),
        ("each", "pool", "small", ("ask",)),
    ]
    assert node.ports() == ("text",)


def test_bounds_and_demand_multiply_through_bodies():
    plan = compile_pipeline(search())
    assert plan.token_bound == 101 * (1024 + 8)
    assert plan.demand == {"small": Demand(9, 9 * 512, 9 * 4)}


def test_a_bound_counts_attempts_and_models_that_take_its_place():
    sure = msgspec.structs.replace(
        node(PURE, prompt="${inputs.question}"),
        retry=Retry(3),
        fallback=(Fallback(model="large"), Fallback(value="none")),
    )
    plan = compile_pipeline(pipeline({"answer": sure}, text="${answer.text}"))
    assert plan.token_bound == (3 + 1) * (1024 + 8)
    assert plan.models == ("large", "small")
    (planned,) = plan.steps[0].nodes
    assert (planned.retry, planned.fallback, planned.effects) == (sure.retry, sure.fallback, "pure")


def test_demand_of_what_may_not_run():
    cases = [
        body({"step": node(SAMPLING, prompt="${inputs.question}")}, when, text="${step.text}")
        for when in ("inputs.level == 'a'", "inputs.level == 'b'")
    ]
    plan = compile_pipeline(pipeline({"answer": branched(*cases)}, text="${answer.text}"))
    assert plan.demand["small"].visits == 1
    only = node(SAMPLING, prompt="${inputs.question}", when="inputs.level == 'a'")
    made = pipeline({"answer": only}, text="${answer.text}")
    plan = compile_pipeline(msgspec.structs.replace(made, defaults={"text": None}))
    assert plan.demand["small"].visits == 0.5


@pytest.mark.parametrize("policy", ["retry", "timeout_s", "fallback", "effects"])
def test_policies_are_part_of_digest_and_hash(policy):
    plain = node(SAMPLING, prompt="${inputs.question}")
    given = {"retry": Retry(2), "timeout_s": 1.0, "fallback": (Fallback(value="x"),), "effects": "effectful"}
    plans = [
        compile_pipeline(pipeline({"answer": each}, text="${answer.text}"))
        for each in (plain, msgspec.structs.replace(plain, **{policy: given[policy]}))
    ]
    assert plans[0].hash != plans[1].hash
    assert plans[0].steps[0].nodes[0].digest != plans[1].steps[0].nodes[0].digest


def test_what_has_effects_is_kept_and_counts():
    """Though no output needs it, in a body too; and two of the same are two."""
    log = msgspec.structs.replace(value("${inputs.level}"), effects="effectful")
    record = msgspec.structs.replace(prompt("{{ x }}", x="${item.value}"), effects="effectful")
    each = body({"record": record, "each": prompt("{{ x }}", x="${item.value}")}, text="${each.text}")
    answer = node(SAMPLING, prompt="${inputs.question}")
    plans = [
        compile_pipeline(pipeline({"answer": answer, **logs}, text="${answer.text}"))
        for logs in ({}, {"a": log}, {"a": log, "b": log}, {"all": mapped("${inputs.list}", each)})
    ]
    assert [len(plan.steps) for plan in plans] == [1, 2, 3, 2]
    assert len({plan.hash for plan in plans}) == 4
    inner = next(n for step in plans[3].steps for n in step.nodes if n.name == "all")
    assert inner.effects == "effectful"
    assert set(inner.bodies["body"].names()) == {"record", "each"}


def test_a_map_takes_as_long_as_its_rounds():
    """8 items expected, 4 at a time: two rounds."""
    draft = compile_until("order", search())
    (inside,) = [each for each in draft.nodes["search"].bodies["body"].nodes.values() if each.pool]
    assert draft.nodes["search"].seconds == pytest.approx(2 * inside.seconds, abs=0.01)


def test_a_loop_takes_as_long_as_its_passes_and_a_branch_as_its_longest_case():
    call = node(SAMPLING, prompt="${inputs.question}")
    loop = looped(body({"step": call}, text="${step.text}"), max_iterations=4, n="${inputs.question}")
    chain = {"first": call, "step": node(SAMPLING, prompt="${first.text}")}
    short = body({"step": call}, "inputs.level == 'a'", text="${step.text}")
    pick = branched(short, body(chain, text="${step.text}"))
    made = pipeline({"go": loop, "pick": pick}, a="${go.text}", b="${pick.text}")
    nodes = compile_until("order", made).nodes
    one = nodes["pick"].bodies["0"].nodes["step"].seconds
    assert nodes["go"].seconds == pytest.approx(2.5 * one, abs=0.01)
    assert nodes["pick"].seconds == pytest.approx(2 * one, abs=0.01)


def test_cheap_nodes_in_a_body_are_one_step():
    each = {"a": prompt("{{ x }}", x="${item.value}"), "b": prompt("{{ x }}", x="${a.text}")}
    made = pipeline({"all": mapped("${inputs.list}", body(each, text="${b.text}"))}, text="${all.text}")
    (step,) = compile_pipeline(made).steps
    (inner,) = step.nodes[0].bodies["body"].steps
    assert [each.name for each in inner.nodes] == ["a", "b"]


def test_defaults_of_inputs_in_bodies_are_bound():
    changes = compile_until("validate", search()).changes
    assert "search.each" in [change.node for change in changes]


def test_models_in_bodies_and_of_fallbacks_are_checked():
    each = msgspec.structs.replace(
        node(PURE, prompt="${item.value}"), fallback=(Fallback(model="embedder"), Fallback(model="lost"))
    )
    every = mapped("${inputs.list}", body({"each": each}, text="${each.text}"))
    made = pipeline({"all": every}, text="${all.text}")
    models = {
        "small": ModelInfo("small", "generate", 512, 64),
        "embedder": ModelInfo("embedder", "embed", 512, 1),
    }
    with pytest.raises(PipelineError) as raised:
        compile_pipeline(made, Catalog(models, {}))
    inside = ("nodes", "all", "map", "nodes", "each")
    assert [(each.code, each.path) for each in raised.value.problems] == [
        ("window", (*inside, "llm", "model")),
        ("wrong-model", (*inside, "fallback", 0, "model")),
        ("unknown-model", (*inside, "fallback", 1, "model")),
    ]


def maps(count, said):
    """With texts that no other pipeline has: parsed ones are kept."""
    nodes = {}
    for index in range(count):
        each = {
            "vector": node(EMBED, text="${inputs.question}"),
            "ask": prompt(f"{said} {index} {{{{ q }}}} {{{{ v }}}}", q="${item}", v="${vector.embedding}"),
            "each": node(PURE, prompt="${ask.text}"),
        }
        over = f"${{m{index - 1}.text}}" if index % 7 else "${inputs.list}"
        nodes[f"m{index}"] = mapped(over, body(each, text="${each.text}"))
    return pipeline(nodes, **{f"o{index}": f"${{m{index}.text}}" for index in range(6, count, 7)})


def deep(levels):
    """Maps in maps, with effects and order at every level: what makes the numbering work hardest."""
    inner = body({"each": node(SAMPLING, prompt="${inputs.question}")}, out="${each.text}")
    for level in reversed(range(levels)):
        one = msgspec.structs.replace(prompt("a"), effects="effectful")
        two = msgspec.structs.replace(prompt("b"), effects="effectful")
        last = prompt("{{ x }}", x=f"${{in{level}.out}}")
        nodes = {f"one{level}": one, f"two{level}": two, f"last{level}": last}
        nodes[f"last{level}"] = msgspec.structs.replace(last, after=(f"one{level}", f"two{level}"))
        nodes[f"in{level}"] = mapped(["x"], inner, called=f"item{level}", max_items=1)
        inner = body(nodes, out=f"${{last{level}.text}}")
    return pipeline({"all": mapped(["x"], inner, max_items=1)}, out="${all.out}")


def calls_to_compile(made):
    return calls_of(lambda: compile_pipeline(made))


def test_four_times_as_many_maps_cost_four_times_as_much():
    """A thousand of them take three seconds on one core. A step that looks at every pair would show."""
    compile_pipeline(maps(7, "first"))  # what is worked out once
    assert calls_to_compile(maps(400, "many")) < 4.1 * calls_to_compile(maps(100, "few"))


def test_a_level_more_does_not_double_the_cost():
    once, twice = deep(3), deep(6)
    compile_pipeline(once)
    assert calls_to_compile(twice) < 3 * calls_to_compile(once)
