"""The compiler as a whole: stages, plans, hashes."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.interface import ModelInfo
from graphs.bindings import Items, Literal, Record, Ref
from graphs.builder import Builder
from graphs.errors import PipelineError
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.pipeline import Metadata, Node, NodeId, Pipeline
from graphs.ports import INTEGER, STRING
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import STAGES, compile_pipeline, compile_until, stages
from runtime.plan import PlannedChat, decode_plan, encode_plan
from tests.graphs.shapes import (
    SHAPES,
    chain,
    conditional,
    diamond,
    inline_chain,
    ordered,
    pipelines,
    rag,
    uneven,
)


def renamed(pipeline: Pipeline, prefix: str = "zz_") -> Pipeline:
    """The same with other names for its nodes, written in the opposite order."""

    def rename(binding):
        match binding:
            case Ref(owner=owner, port=port):
                return Ref(prefix + owner if owner in pipeline.nodes else owner, port)
            case Items(items=items):
                return Items(tuple(map(rename, items)))
            case Record(fields=fields):
                return Record({name: rename(item) for name, item in reversed(fields.items())})
            case _:
                return binding

    return msgspec.structs.replace(
        pipeline,
        metadata=Metadata("another"),
        nodes={
            NodeId(prefix + name): Node(
                node.spec,
                {port: rename(binding) for port, binding in reversed(node.inputs.items())},
                tuple(NodeId(prefix + other) for other in reversed(node.after)),
                None if node.when is None else re.sub(r"\b(?!inputs)(\w+\.)", rf"{prefix}\1", node.when),
            )
            for name, node in reversed(pipeline.nodes.items())
        },
        outputs={name: rename(ref) for name, ref in reversed(pipeline.outputs.items())},
    )


def test_stages_are_those_of_the_design():
    assert STAGES == ("validate", "resolve", "prune", "dedupe", "fuse", "assign", "order")


def test_any_stage_can_be_stopped_after():
    for index, stage in enumerate(STAGES):
        assert tuple(stages(rag(), until=stage)) == STAGES[: index + 1]
    assert compile_until("assign", rag()).nodes[NodeId("answer")].pool == "small"
    with pytest.raises(KeyError):
        compile_until("optimise", rag())


def test_a_pipeline_with_mistakes_is_refused_before_anything_else():
    broken = Pipeline(Metadata("x"), {}, {})
    with pytest.raises(PipelineError, match="needs nodes"):
        compile_pipeline(broken)


def test_plan_of_the_rag():
    plan = compile_pipeline(rag())
    assert [(step.id, step.backend, step.pool, step.depends_on) for step in plan.steps] == [
        ("vector", "pool", "embedder", ()),
        ("search", "inline", None, ("vector",)),
        ("ask", "inline", None, ("search",)),
        ("answer", "pool", "small", ("ask",)),
    ]
    assert plan.models == ("embedder", "small")
    assert plan.indexes == ("manual",)
    assert plan.reads == ("sessionHistory",)
    assert plan.token_bound == 256 + 1024 + 128
    assert plan.chat == PlannedChat("question", "text", NodeId("answer"))


@pytest.mark.parametrize("name", SHAPES)
def test_plans_survive_the_wire(name):
    plan = compile_pipeline(SHAPES[name]())
    assert decode_plan(encode_plan(plan)) == plan
    assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan


def test_different_pipelines_have_different_hashes():
    assert len({compile_pipeline(shape()).hash for shape in SHAPES.values()}) == len(SHAPES)


@given(pipelines())
def test_hash_depends_neither_on_names_nor_on_order(pipeline):
    plan, other = compile_pipeline(pipeline), compile_pipeline(renamed(pipeline))
    assert other.hash == plan.hash
    assert other.token_bound == plan.token_bound
    assert len(other.steps) == len(plan.steps)


@given(pipelines(), st.data())
def test_hash_sees_a_change_of_any_model_call(pipeline, data):
    plan = compile_pipeline(pipeline)
    calls = [node.name for step in plan.steps for node in step.nodes if isinstance(node.spec, Llm)]
    if not calls:
        return
    name = data.draw(st.sampled_from(calls))
    node = pipeline.nodes[name]
    spec = msgspec.structs.replace(node.spec, max_tokens=5)
    changed = {**pipeline.nodes, name: Node(spec, node.inputs)}
    assert compile_pipeline(msgspec.structs.replace(pipeline, nodes=changed)).hash != plan.hash


def test_hash_tells_one_sampling_node_used_twice_from_two():
    def build(shared: bool) -> Pipeline:
        b = Builder("x")
        a1 = b.add("a1", Llm(model="m"), prompt="hi")["text"]
        a2 = b.add("a2", Llm(model="m"), prompt="hi")["text"]
        template = Prompt(template="{{ x }}{{ y }}")
        other = a1 if shared else a2
        b.output("one", b.add("b", template, x=a1, y=other)["text"])
        b.output("two", b.add("c", template, x=a2, y=a2 if shared else a1)["text"])
        return b.build()

    assert compile_pipeline(build(True)).hash != compile_pipeline(build(False)).hash


def test_hash_sees_what_comes_after_what():
    b = Builder("ordered")
    question = b.input("question", STRING)
    for name, model, output in (("first", "small", "one"), ("second", "large", "two")):
        b.output(output, b.add(name, Llm(model=model, max_tokens=8), prompt=question)["text"])
    assert compile_pipeline(b.build()).hash != compile_pipeline(ordered()).hash


def test_a_step_waits_for_what_it_comes_after():
    steps = {step.id: step.depends_on for step in compile_pipeline(ordered()).steps}
    assert steps == {"first": (), "second": ("first",)}


def test_hash_sees_conditions_and_defaults():
    def build(condition: str, default: str | None) -> Pipeline:
        b = Builder("x")
        b.input("question", STRING)
        b.output("o", b.add("a", Llm(model="m"), prompt="hi").when(condition)["text"], default=default)
        return b.build()

    base = compile_pipeline(build("inputs.question == ''", None)).hash
    assert base == compile_pipeline(build("inputs.question==''", None)).hash
    others = [build("inputs.question != ''", None), build("inputs.question == ''", "x")]
    assert base not in [compile_pipeline(other).hash for other in others]


def test_a_reply_that_may_be_absent_comes_in_one_piece():
    b = Builder("x")
    question = b.input("question", STRING)
    answer = b.add("a", Llm(model="m", stream=True), prompt=question).when("inputs.question != ''")
    b.output("text", answer["text"], default="nothing")
    assert compile_pipeline(b.build()).chat == PlannedChat("question", "text", None)


def test_output_types_of_what_may_be_absent():
    types = compile_pipeline(conditional()).output_types
    assert {name: str(kind) for name, kind in types.items()} == {
        "text": "string",
        "short": "optional[string]",
        "both": "{list: list[optional[string]], long: optional[string]}",
    }


def test_hash_does_not_see_descriptions():
    def build(description: str) -> Pipeline:
        b = Builder("x", description=description)
        b.output(
            "o", b.add("a", Llm(model="m"), prompt=b.input("q", STRING, description=description))["text"]
        )
        return b.build()

    assert compile_pipeline(build("a")).hash == compile_pipeline(build("b")).hash


def test_outputs_straight_from_outside():
    b = Builder("x")
    b.output("q", b.input("question", STRING))
    b.output("history", b.context("sessionHistory"))
    b.value("spare", 1)
    plan = compile_pipeline(b.build())
    assert {name: str(kind) for name, kind in plan.output_types.items()} == {
        "q": "string",
        "history": "list[Message]",
    }
    assert plan.chat == PlannedChat("question", "q")


def test_a_plan_without_steps():
    b = Builder("x")
    b.output("o", b.value("v", {"a": [1]}))
    plan = compile_pipeline(b.build())
    assert plan.steps == ()
    assert plan.outputs == {"o": Literal({"a": [1]})}


def test_steps_come_after_what_they_depend_on():
    for shape in SHAPES.values():
        done = set()
        for step in compile_pipeline(shape()).steps:
            assert set(step.depends_on) <= done
            done.add(step.id)


def test_the_urgent_root_comes_first():
    assert compile_pipeline(uneven()).steps[0].id == "slow"


class TestChat:
    """How a pipeline is talked to where it does not say."""

    def test_inferred(self):
        assert compile_pipeline(chain()).chat == PlannedChat("question", "text", NodeId("answer"))

    def test_a_reply_that_does_not_stream(self):
        assert compile_pipeline(inline_chain()).chat == PlannedChat("question", "text", None)

    def test_output_named_text_wins_over_others(self):
        b = Builder("x")
        question = b.input("question", STRING)
        b.output("other", question)
        b.output("text", b.add("a", Prompt(template="{{ q }}"), q=question)["text"])
        assert compile_pipeline(b.build()).chat == PlannedChat("question", "text")

    @pytest.mark.parametrize("case", ["two inputs", "two outputs", "no text"])
    def test_not_inferred(self, case):
        b = Builder("x")
        question = b.input("question", STRING)
        if case == "two inputs":
            b.output(
                "text",
                b.add("a", Prompt(template="{{ q }}{{ n }}"), q=question, n=b.input("n", STRING))["text"],
            )
        elif case == "two outputs":
            for name in ("a", "b"):
                b.output(name, b.add(name, Prompt(template="{{ q }}"), q=question)["text"])
        else:
            b.output("n", b.value("v", {"q": question}))
        assert compile_pipeline(b.build()).chat is None

    def test_an_input_that_is_no_string(self):
        b = Builder("x")
        b.output("text", b.add("a", Prompt(template="{{ n }}"), n=b.input("n", INTEGER))["text"])
        assert compile_pipeline(b.build()).chat is None


def test_catalog_is_checked():
    info = ModelInfo("small", "generate", 4096, 64)
    known = Catalog({"small": info, "large": info}, {})
    assert compile_pipeline(diamond(), known).models == ("large", "small")
    with pytest.raises(PipelineError, match="there is no model large"):
        compile_pipeline(diamond(), Catalog({"small": info}, {}))
