"""Stage 3: what is constant, passed on or unwanted is gone."""

import pytest

from graphs.bindings import Items, Literal, Ref
from graphs.builder import Builder
from graphs.errors import PipelineError
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.value import Value
from graphs.ports import MESSAGE, STRING, list_of
from runtime.compiler.passes.prune import MAX_CONSTANT_CHARS, prune
from runtime.compiler.passes.validate import validate


def pruned(b: Builder):
    return prune(validate(b.build(), None))


def reasons(draft):
    return {change.node: change.reason for change in draft.changes}


def test_a_constant_prompt_is_rendered_now():
    b = Builder("x")
    role = b.value("role", "brief")
    ask = b.add("ask", Prompt(template="Be {{ role }}."), role=role)
    b.output("text", b.add("answer", Llm(model="m"), prompt=ask["text"])["text"])
    draft = pruned(b)
    assert set(draft.nodes) == {"answer"}
    assert draft.nodes["answer"].inputs["prompt"] == Literal("Be brief.")
    assert reasons(draft) == {"role": "its inputs are constants", "ask": "its inputs are constants"}


def test_a_value_that_only_passes_on_is_left_out():
    b = Builder("x")
    question = b.input("question", STRING)
    same = b.value("same", b.value("again", question))
    ask = b.add("p", Prompt(template="{{ x }}"), x=same)
    b.output("text", b.add("answer", Llm(model="m"), prompt=ask["text"])["text"])
    b.output("list", b.value("list", [same, 1]))
    draft = pruned(b)
    assert set(draft.nodes) == {"p", "answer", "list"}
    assert draft.nodes["p"].inputs["x"] == Ref("inputs", "question")
    assert draft.nodes["list"].inputs["value"] == Items((Ref("inputs", "question"), Literal(1)))
    assert reasons(draft)["same"] == "only passes on ${inputs.question}"


def test_what_reaches_no_output_is_dropped():
    b = Builder("x")
    question = b.input("question", STRING)
    first = b.add("spare", Llm(model="m"), prompt=question)
    b.add("spare_too", Llm(model="m"), prompt=first["text"])
    b.output("text", b.add("answer", Llm(model="m"), prompt=question)["text"])
    draft = pruned(b)
    assert set(draft.nodes) == {"answer"}
    assert reasons(draft) == {"spare": "reaches no output", "spare_too": "reaches no output"}


def test_a_model_call_on_constants_is_not_made_now():
    b = Builder("x")
    b.output("text", b.add("answer", Llm(model="m", temperature=0), prompt="hi")["text"])
    assert set(pruned(b).nodes) == {"answer"}


def test_a_constant_that_cannot_be_computed_is_a_mistake():
    b = Builder("x")
    b.output("text", b.add("ask", Prompt(template="{{ x.y }}"), x={})["text"])
    with pytest.raises(PipelineError) as refused:
        pruned(b)
    (problem,) = refused.value.problems
    assert (problem.code, problem.path) == ("bad-constant", ("nodes", "ask"))
    assert "has no attribute 'y'" in problem.message


def test_a_large_constant_is_left_to_the_run():
    b = Builder("x")
    text = "a" * (MAX_CONSTANT_CHARS // 2)
    b.output("text", b.add("ask", Prompt(template="{{ x }}{{ x }}{{ x }}"), x=text)["text"])
    assert set(pruned(b).nodes) == {"ask"}


def test_outputs_become_constants():
    b = Builder("x")
    b.output("v", b.value("v", {"a": b.value("w", 1)}))
    draft = pruned(b)
    assert draft.nodes == {}
    assert draft.outputs == {"v": Literal({"a": 1})}


def test_what_others_come_after_is_wanted():
    b = Builder("x")
    question = b.input("question", STRING)
    first = b.add("first", Llm(model="m"), prompt=question)
    b.output("text", b.add("answer", Llm(model="m"), prompt=question).after(first)["text"])
    assert set(pruned(b).nodes) == {"first", "answer"}


def test_order_survives_the_nodes_that_carried_it():
    """first ─► same ┄► constant ┄► answer: the two in between are left out, answer still waits for first."""
    b = Builder("x")
    question = b.input("question", STRING)
    first = b.add("first", Llm(model="m"), prompt=question)
    same = b.add("same", Value(), value=first["text"])
    constant = b.add("constant", Value(), value=1).after(same)
    b.output("text", b.add("answer", Llm(model="m"), prompt=question).after(constant)["text"])
    draft = pruned(b)
    assert set(draft.nodes) == {"first", "answer"}
    assert draft.nodes["answer"].after == ("first",)


def test_what_takes_a_constant_waits_as_the_constant_did():
    b = Builder("x")
    question = b.input("question", STRING)
    first = b.add("first", Llm(model="m"), prompt=question)
    ask = b.add("ask", Prompt(template="hi")).after(first)
    b.output("text", b.add("answer", Llm(model="m"), prompt=ask["text"])["text"])
    assert pruned(b).nodes["answer"].after == ("first",)


class TestConditions:
    """What is known of conditions before anything runs."""

    def build(self, condition: str, **output) -> Builder:
        b = Builder("x")
        question = b.input("question", STRING)
        answer = b.add("answer", Llm(model="m"), prompt=question).when(condition)
        after = b.add("say", Prompt(template="{{ x }}"), x=answer["text"])
        b.output("text", after["text"], **output)
        return b

    def test_one_that_always_holds_is_gone(self):
        draft = pruned(self.build("1 < 2", default=None))
        assert draft.nodes["answer"].when is None
        assert set(draft.nodes) == {"answer", "say"}

    def test_one_that_never_holds_takes_all_that_needs_it_along(self):
        draft = pruned(self.build("1 > 2", default="nothing"))
        assert draft.nodes == {}
        assert draft.outputs == {"text": Literal("nothing")}
        assert reasons(draft) == {
            "answer": "its condition never holds",
            "say": "its input x is always absent",
        }

    def test_one_on_constants_is_decided_now(self):
        b = self.build("role.value == 'brief'", default=None)
        b.value("role", "brief")
        assert pruned(b).nodes["answer"].when is None

    def test_one_on_constants_that_cannot_be_decided_is_a_mistake(self):
        b = self.build("role.value[3] == 1", default=None)
        b.value("role", [1])
        with pytest.raises(PipelineError) as refused:
            pruned(b)
        assert refused.value.problems[0].path == ("nodes", "answer", "when")

    def test_absent_values_become_null_or_defaults(self):
        b = Builder("x")
        question = b.input("question", STRING)
        said = b.input("said", list_of(MESSAGE), default=[])
        gone = b.add("gone", Value(), value=said).when("false")
        b.output("list", b.value("list", [question, gone["value"]]))
        answer = b.add("answer", Llm(model="m"), prompt=question, history=gone["value"])
        b.output("text", answer.when("gone.value == null && inputs.question == ''")["text"], default=None)
        draft = pruned(b)
        assert draft.nodes["list"].inputs["value"] == Items((Ref("inputs", "question"), Literal(None)))
        assert draft.nodes["answer"].inputs["history"] == Literal([])
        assert draft.nodes["answer"].when is not None
        assert draft.nodes["answer"].when.operands[0].binding == Literal(None)

    def test_a_constant_that_may_be_absent_is_left_to_the_run(self):
        b = Builder("x")
        b.input("question", STRING)
        same = b.add("same", Value(), value=1).when("inputs.question == ''")
        b.output("v", same["value"], default=None)
        assert set(pruned(b).nodes) == {"same"}
