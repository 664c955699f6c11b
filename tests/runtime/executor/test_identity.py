"""Equal digests for what answers equally, others for what may not."""

import pytest
from msgspec.structs import replace

from graphs.nodes.llm import Llm
from graphs.nodes.retrieve import Retrieve
from runtime.compiler.compile import compile_pipeline
from runtime.executor.identity import MAX_QUESTION_BYTES, identity_of, question_of
from runtime.executor.kinds.kind import Resources
from runtime.executor.slots import ABSENT
from tests.runtime.compiler.bodies import body, mapped, node, pipeline
from tests.runtime.parts import Shelf, generator, pools

GREEDY = Llm(model="small", max_tokens=8, temperature=0)


def planned(made, **around):
    """The node `x`, behind what is around it."""
    whole = pipeline({**around, "x": made}, o=f"${{x.{made.ports()[0]}}}")
    return next(each for step in compile_pipeline(whole).steps for each in step.nodes if each.name == "x")


def identity(made, resources=None, **around) -> bytes:
    return identity_of(planned(made, **around), resources or Resources(pools(), {"manual": Shelf()}))


def test_only_what_a_node_does_counts():
    first = node(GREEDY, prompt="${inputs.question}")
    behind = {"y": node(GREEDY, prompt="${inputs.level}")}
    assert identity(first) == identity(node(GREEDY, prompt="${y.text}"), **behind)
    assert identity(first) != identity(node(replace(GREEDY, max_tokens=9), prompt="${inputs.question}"))


def test_the_version_of_the_model_counts():
    made = node(GREEDY, prompt="${inputs.question}")
    small = generator("small")
    small.info = replace(small.info, version="2")
    assert identity(made) != identity(made, Resources(pools() | {"small": small}))


def test_the_version_of_the_index_counts():
    made, shelf = node(Retrieve(index="manual"), embedding=[0.5], top_k=1), Shelf()
    shelf.version = "2"
    assert identity(made) != identity(made, Resources(pools(), {"manual": shelf}))


def test_what_is_inside_counts():
    def each(prompt: str):
        inner = body({"y": node(GREEDY, prompt=prompt)}, text="${y.text}")
        return mapped("${inputs.list}", inner, max_items=4)

    assert identity(each("${item.value}")) == identity(each("${item.value}"))
    assert identity(each("${item.value}")) != identity(each("${inputs.level}"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}),
        ({"a": "1"}, {"a": 1}),
        ({"a": None}, {"a": False}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": float("inf")}, {"a": float("nan")}),
    ],
)
def test_other_inputs_are_another_question(one, other):
    assert question_of(b"i", one, []) != question_of(b"i", other, [])
    assert question_of(b"i", one, []) != question_of(b"j", one, [])


def test_the_order_of_fields_does_not_count():
    assert question_of(b"i", {"a": {"x": 1, "y": 2}}, []) == question_of(b"i", {"a": {"y": 2, "x": 1}}, [])


def test_what_is_around_counts():
    questions = {question_of(b"i", {}, around) for around in ([], [None], ["a"], [ABSENT])}
    assert len(questions) == 4


def test_what_is_too_large_or_no_value_has_none():
    assert question_of(b"i", {"a": "x" * MAX_QUESTION_BYTES}, []) is None
    assert question_of(b"i", {"a": object()}, []) is None
