"""Which nodes are shared with other runs, which are cached, and what may begin before it is chosen."""

import pytest
from msgspec.structs import replace

from graphs.bindings import Literal, Ref
from graphs.nodes.classify import Classify
from graphs.nodes.embed import Embed
from graphs.nodes.http import Http
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.retrieve import Retrieve
from graphs.nodes.router import Router
from graphs.pipeline import Cache, Node, NodeId, Pipeline, Policies
from runtime.compiler.compile import compile_pipeline, compile_until
from runtime.plan import PlannedNode
from tests.runtime.compiler.bodies import body, branched, mapped, node, pipeline

ANSWER = Llm(model="small", max_tokens=8, temperature=0)
ROUTER = Router(model="small", choices={"a": "one", "b": "another"}, max_prompt_tokens=8)
NONE = Policies()
LABELS = {"a": "one", "b": "another"}


def planned(made: Node, policies: Policies = NONE) -> PlannedNode:
    """A node that is alone in a pipeline, as it is planned."""
    whole: Pipeline = replace(pipeline({"x": made}, o=f"${{x.{made.ports()[0]}}}"), policies=policies)
    whole = replace(whole, defaults=dict.fromkeys(whole.outputs))
    return next(each for step in compile_pipeline(whole).steps for each in step.nodes)


def asks(spec=ANSWER) -> Node:
    return node(spec, prompt="${inputs.question}")


SHARED = {
    "greedy": (asks(), True),
    "sampled": (asks(Llm(model="small")), False),
    "sampled with a seed": (asks(Llm(model="small", seed=3)), True),
    "embed": (node(Embed(model="embedder"), text="${inputs.question}"), True),
    "classify": (node(Classify(model="small", labels=LABELS), text="${inputs.question}"), True),
    "classify that may differ": (
        replace(
            node(Classify(model="small", labels=LABELS), text="${inputs.question}"), effects="idempotent"
        ),
        False,
    ),
    "http": (node(Http(url="https://example.com/")), False),
    "retrieve": (node(Retrieve(index="manual"), embedding=[0.5], top_k=1), False),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared(name):
    made, shared = SHARED[name]
    assert planned(made).shared is shared
    assert planned(made, Policies(share=False)).shared is False


def test_the_cache_of_the_pipeline_is_for_pure_nodes_that_make_calls():
    policies = Policies(cache=Cache(60))
    assert planned(asks(), policies).cache == Cache(60)
    assert planned(replace(asks(), cache=Cache(5)), policies).cache == Cache(5)
    assert planned(asks(Llm(model="small")), policies).cache is None
    assert planned(SHARED["retrieve"][0], policies).cache is None
    assert planned(asks()).cache is None


def test_a_node_is_cached_where_its_author_says_so():
    assert planned(replace(asks(Llm(model="small")), cache=Cache(5))).cache == Cache(5)
    found = planned(replace(SHARED["retrieve"][0], cache=Cache(5)))
    assert (found.cache, found.shared) == (Cache(5), True)  # it may wait now


def test_a_cache_is_part_of_what_a_plan_does():
    cached, plain = replace(asks(), cache=Cache(5)), asks()
    hashes = {compile_pipeline(pipeline({"x": each}, o="${x.text}")).hash for each in (cached, plain)}
    assert len(hashes) == 2


def routed() -> Node:
    effectful = replace(asks(), effects="effectful")
    bodies = {
        "a": body({"y": asks()}, text="${y.text}"),
        "b": body({"z": effectful}, text="${z.text}"),
    }
    return node(ROUTER, bodies=bodies, text="${inputs.question}")


def test_what_has_no_effects_may_begin_ahead_where_the_pipeline_wants_it():
    assert planned(routed(), Policies(speculate=True)).ahead == ("a",)
    assert planned(routed()).ahead == ()


def test_the_bound_of_tokens_counts_what_may_be_lost():
    def bound(policies: Policies) -> int:
        other = Llm(model="large", max_tokens=8, temperature=0)
        bodies = {
            "a": body({"y": asks()}, text="${y.text}"),
            "b": body({"z": asks(other)}, text="${z.text}"),
        }
        made = pipeline({"x": node(ROUTER, bodies=bodies, text="${inputs.question}")}, o="${x.text}")
        made = replace(made, defaults={"o": None})
        return compile_pipeline(replace(made, policies=policies)).token_bound

    assert bound(Policies(speculate=True)) == bound(Policies()) + ANSWER.tokens.total


OTHER = Llm(model="small", max_tokens=9, temperature=0)
JUDGE = node(Classify(model="large", labels=LABELS), text="${inputs.question}")


def early(policies=None, when="judge.label == 'a'", **changed):
    """After which steps the node `x` may begin, while `judge` decides whether it is wanted."""
    nodes = {"judge": JUDGE, "first": asks(), "x": replace(asks(OTHER), **({"when": when} | changed))}
    made = pipeline(nodes, o="${x.text}", first="${first.text}")
    made = replace(made, policies=policies or Policies(speculate=True), defaults={"o": None})
    return {step.id: step.early for step in compile_pipeline(made).steps}["x"]


def test_what_has_no_effects_may_begin_before_its_condition_is_known():
    assert early() == ()
    assert early(inputs={"prompt": Ref("first", "text"), "history": Literal([])}) == ("first",)
    assert early(after=(NodeId("first"),)) == ("first",)


NOT_EARLY = {
    "without the policy": {"policies": Policies()},
    "with effects": {"effects": "effectful"},
    "without a condition": {"when": None},
    "where the condition is known at once": {"when": "inputs.level == 'a'"},
    "where it takes what the condition looks at": {
        "inputs": {"prompt": Ref("judge", "label"), "history": Literal([])}
    },
}


@pytest.mark.parametrize("name", NOT_EARLY)
def test_what_waits_for_its_condition(name):
    assert early(**NOT_EARLY[name]) is None


def cases_early(*cases, policies=None, whens=("judge.label == 'a'",), around=None, **changed):
    """By case of the branch `x`, the steps after which it may begin."""
    bodies = [
        body({f"say{index}": each}, text=f"${{say{index}.text}}", when=when)
        for index, (each, when) in enumerate(zip(cases, (*whens, None), strict=True))
    ]
    made = pipeline(
        {"judge": JUDGE, "first": asks(), **(around or {}), "x": replace(branched(*bodies), **changed)},
        o="${x.text}",
        first="${first.text}",
    )
    plan = compile_pipeline(
        replace(made, policies=policies or Policies(speculate=True), defaults={"o": None})
    )
    step = next(step for step in plan.steps if step.id == "x")
    assert step.nodes[0].ahead == tuple(step.cases_early)
    return step.cases_early


THIRD = Llm(model="large", max_tokens=7, temperature=0)
TAKES_FIRST = node(OTHER, prompt="${first.text}")
TAKES_LABEL = node(OTHER, prompt="${judge.label}")
EFFECTFUL = replace(asks(OTHER), effects="effectful")


def test_each_case_may_begin_when_what_it_takes_is_there():
    assert cases_early(asks(THIRD), TAKES_FIRST) == {"0": (), "1": ("first",)}
    later = cases_early(asks(THIRD), asks(OTHER), after=(NodeId("first"),))
    assert later == {"0": ("first",), "1": ("first",)}
    gate = {"gate": JUDGE}
    assert cases_early(asks(THIRD), whens=(), around=gate, when="gate.label == 'a'") == {"0": ()}


NOT_ALL = {
    "without the policy": ((asks(THIRD), asks(OTHER)), {"policies": Policies()}, set()),
    "with effects": ((EFFECTFUL, asks(THIRD)), {}, {"1"}),
    "where it calls nothing": ((node(Prompt("t")), asks(THIRD)), {}, {"1"}),
    "where the conditions are known at once": (
        (asks(THIRD), asks(OTHER)),
        {"whens": ("inputs.level == 'a'",)},
        set(),
    ),
    "where it takes what the condition looks at": ((TAKES_LABEL, TAKES_FIRST), {}, {"1"}),
    "where the first condition is known": (
        (asks(THIRD), asks(OTHER), asks(THIRD)),
        {"whens": ("inputs.level == 'a'", "judge.label == 'a'")},
        {"1", "2"},
    ),
    "where answers are kept": ((asks(THIRD), asks(OTHER)), {"cache": Cache(60)}, set()),
}


@pytest.mark.parametrize("name", NOT_ALL)
def test_what_cases_wait_for_their_conditions(name):
    cases, changed, begun = NOT_ALL[name]
    assert cases_early(*cases, **changed).keys() == begun


def test_a_branch_that_reads_a_list_while_it_is_made_waits_for_its_conditions():
    several = {"several": node(Llm(model="small", n=2, max_tokens=8), prompt="${inputs.question}")}
    each = body({"each": node(ANSWER, prompt="${item.value}")}, text="${each.text}")
    assert cases_early(mapped("${several.texts}", each), asks(OTHER), around=several) == {}
    assert cases_early(mapped("${inputs.list}", each), asks(OTHER), around=several).keys() == {"0", "1"}


def test_the_bound_of_tokens_counts_all_cases_that_may_begin():
    def bound(policies: Policies) -> int:
        cases = [
            body({"y": asks(THIRD)}, text="${y.text}", when="judge.label == 'a'"),
            body({"z": asks(OTHER)}, text="${z.text}"),
        ]
        made = pipeline({"judge": JUDGE, "x": branched(*cases)}, o="${x.text}")
        return compile_pipeline(replace(made, policies=policies)).token_bound

    assert bound(Policies(speculate=True)) == bound(Policies()) + THIRD.tokens.total


def test_the_plan_says_what_begins_before_it_is_wanted():
    cases = [
        body({"c": asks(THIRD)}, text="${c.text}", when="judge.label == 'a'"),
        body({"d": EFFECTFUL}, text="${d.text}"),
    ]
    nodes = {
        "judge": JUDGE,
        "x": replace(asks(), when="judge.label == 'a'"),
        "pick": routed(),
        "way": branched(*cases),
    }
    made = pipeline(nodes, o="${x.text}", choice="${pick.choice}", way="${way.text}")
    made = replace(made, policies=Policies(speculate=True), defaults={"o": None})
    said = {(change.node, change.what) for change in compile_until("order", made).changes}
    assert said >= {
        ("x", "begins before its condition is known"),
        ("pick", "begins a while it chooses"),
        ("way", "begins 0 before its conditions are known"),
    }
