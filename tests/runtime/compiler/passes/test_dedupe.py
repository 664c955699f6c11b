"""Stage 4: the same is computed once, and only the same."""

from graphs.bindings import Ref
from graphs.builder import Builder
from graphs.nodes.embed import Embed
from graphs.nodes.llm import Llm
from graphs.nodes.retrieve import Retrieve
from graphs.ports import STRING
from runtime.compiler.passes.dedupe import dedupe
from runtime.compiler.passes.validate import validate


def deduped(b: Builder):
    return dedupe(validate(b.build(), None))


def test_a_shared_prefix_is_computed_once():
    b = Builder("x")
    question = b.input("question", STRING)
    for side in ("a", "b"):
        vector = b.add(f"embed_{side}", Embed(model="m"), text=question)
        hits = b.add(f"search_{side}", Retrieve(index=side), embedding=vector["embedding"])
        b.output(side, hits["documents"])
    draft = deduped(b)
    assert set(draft.nodes) == {"embed_a", "search_a", "search_b"}
    assert draft.nodes["search_b"].inputs["embedding"] == Ref("embed_a", "embedding")
    assert [(change.node, change.what) for change in draft.changes] == [("embed_b", "is embed_a")]


def test_equality_goes_down_the_graph():
    b = Builder("x")
    question = b.input("question", STRING)
    for side in ("a", "b"):
        first = b.add(f"first_{side}", Llm(model="m", temperature=0), prompt=question)
        second = b.add(f"second_{side}", Llm(model="m", temperature=0), prompt=first["text"])
        b.output(side, second["text"])
    draft = deduped(b)
    assert set(draft.nodes) == {"first_a", "second_a"}
    assert draft.outputs == {"a": Ref("second_a", "text"), "b": Ref("second_a", "text")}


def test_what_samples_stays_on_its_own():
    b = Builder("x")
    for side in ("a", "b"):
        b.output(side, b.add(side, Llm(model="m"), prompt="hi")["text"])
    assert set(deduped(b).nodes) == {"a", "b"}


def test_consumers_of_two_samplings_are_not_the_same():
    b = Builder("x")
    for side in ("a", "b"):
        sample = b.add(side, Llm(model="m"), prompt="hi")
        b.output(side, b.add(f"after_{side}", Llm(model="m", temperature=0), prompt=sample["text"])["text"])
    assert set(deduped(b).nodes) == {"a", "b", "after_a", "after_b"}


def test_another_setting_is_another_computation():
    b = Builder("x")
    for tokens in (1, 2):
        spec = Llm(model="m", temperature=0, max_tokens=tokens)
        b.output(f"o{tokens}", b.add(f"n{tokens}", spec, prompt="hi")["text"])
    assert len(deduped(b).nodes) == 2


def test_what_comes_after_something_else_is_not_the_same():
    b = Builder("x")
    question = b.input("question", STRING)
    first = b.add("first", Llm(model="m"), prompt=question)
    for side in ("a", "b", "c"):
        node = b.add(side, Llm(model="m", temperature=0), prompt=question)
        b.output(side, (node if side == "a" else node.after(first))["text"])
    b.output("first", first["text"])
    assert set(deduped(b).nodes) == {"first", "a", "b"}


def test_who_comes_after_a_merged_node_comes_after_the_one_that_stays():
    b = Builder("x")
    question = b.input("question", STRING)
    same = [b.add(side, Llm(model="m", temperature=0), prompt=question) for side in ("a", "b")]
    b.output("text", b.add("last", Llm(model="m"), prompt="hi").after(*same)["text"])
    assert deduped(b).nodes["last"].after == ("a",)


def test_what_runs_on_another_condition_is_not_the_same():
    b = Builder("x")
    question = b.input("question", STRING)
    for side, condition in (("a", "inputs.question == ''"), ("b", "inputs.question==''"), ("c", "false")):
        node = b.add(side, Llm(model="m", temperature=0), prompt=question).when(condition)
        b.output(side, node["text"], default=None)
    assert set(deduped(b).nodes) == {"a", "c"}
