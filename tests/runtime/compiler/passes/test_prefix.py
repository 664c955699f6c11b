"""What model calls begin with."""

import pytest

from graphs.nodes.llm import Llm
from runtime.compiler.compile import compile_pipeline, compile_until
from runtime.compiler.passes.prefix import MIN_PREFIX_CHARS
from tests.runtime.compiler.bodies import body, mapped, node, pipeline, prompt

RULES = "Answer in one sentence, and only from what is given. " * 3


def call(**settings):
    return Llm(**{"model": "small", "system": RULES} | settings)


def prefixes(**nodes):
    made = pipeline(nodes, **{f"o_{name}": f"${{{name}.text}}" for name in nodes})
    draft = compile_until("fuse", made)
    return {path: node.prefix for path, node in draft.everything()}, draft.changes


def test_siblings_that_begin_alike_have_the_same_prefix():
    each = body({"each": node(call(), prompt="${item}")}, text="${each.text}")
    found, changes = prefixes(
        a=node(call(), prompt="${inputs.question}"),
        b=node(call(prompt="{{ q }}?"), q="${inputs.level}"),
        all=mapped("${inputs.list}", each),
    )
    assert found["a"] == found["b"] == found["all.each"] is not None
    assert found["all"] is None
    told = {change.node: change for change in changes}
    assert told["a"].what == f"prefix of {len(RULES)} characters"
    assert told["a"].reason == "3 calls on the same model begin so, as b"


def test_a_template_counts_up_to_its_first_variable():
    found, _ = prefixes(
        say=prompt(RULES + "{{ q }} {{ q }}", q="${inputs.question}"),
        a=node(call(system=None), prompt="${say.text}"),
        b=node(call(system=None, prompt=RULES + "{{ x }}!"), x="${inputs.level}"),
    )
    assert found["a"] == found["b"] is not None


@pytest.mark.parametrize("other", [{"model": "large"}, {"system": RULES + "."}, {"prompt": "Hi {{ x }}"}])
def test_others_do_not(other):
    given = {"x": "${inputs.question}"} if "prompt" in other else {"prompt": "${inputs.question}"}
    found, changes = prefixes(a=node(call(), prompt="${inputs.question}"), b=node(call(**other), **given))
    assert None is not found["a"] != found["b"] is not None
    assert not changes


def test_a_short_one_is_none():
    short = "x" * (MIN_PREFIX_CHARS - 1)
    found, _ = prefixes(a=node(call(system=short), prompt="${inputs.question}"))
    assert found == {"a": None}


def test_the_plan_has_it():
    plan = compile_pipeline(pipeline({"a": node(call(), prompt="${inputs.question}")}, text="${a.text}"))
    assert plan.steps[0].nodes[0].prefix is not None
