"""Graphs that use graphs: in which order they are loaded, and what happens where that is not possible."""

from itertools import pairwise

import pytest

from graphs.bindings import Ref
from graphs.errors import PipelineError
from graphs.inference import typed
from graphs.known import NOTHING_KNOWN, Known
from graphs.loader import Loaded, load
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import NodeId
from graphs.ports import INTEGER, STRING, optional
from graphs.together import load_together
from graphs.writer import to_data, to_yaml

INNER = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: inner}
inputs: {question: string, n: {type: integer, default: 3, minimum: 1}}
context: {reads: [sessionHistory]}
nodes:
  a: {value: "${inputs.question}", when: inputs.n > 2}
  b: {value: ["${inputs.n}", "${context.sessionHistory}"]}
outputs:
  said: {from: "${a}", default: nothing}
  may: {from: "${a}", optional: true}
  b: ${b}
"""
HINT = "add it to context: {reads: [sessionHistory]}"
HEAD = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: outer}
inputs: {question: string}
context: {reads: [sessionHistory]}
nodes:
"""
USE = """\
  ask:
    subgraph: {graph: inner}
    with: {question: "${inputs.question}"}
outputs: {said: "${ask.said}", may: "${ask.may}"}
"""
KNOWN = Known(graphs={"inner": load(INNER).pipeline})


def problems_of(text, known=KNOWN):
    with pytest.raises(PipelineError) as refused:
        load(text, known=known)
    return [each for each in refused.value.problems if each.severity == "error"]


def test_a_graph_is_a_node():
    pipeline = load(HEAD + USE, known=KNOWN).pipeline
    node, inner = pipeline.nodes[NodeId("ask")], KNOWN.graphs["inner"]
    assert node.spec == Subgraph("inner", inner.inputs)
    assert node.bodies["body"].nodes == inner.nodes
    assert node.bodies["body"].defaults == {"said": "nothing"}
    assert typed(pipeline).outputs == {"said": STRING, "may": optional(STRING)}
    assert typed(pipeline).bodies[NodeId("ask")]["body"].refs[Ref("inputs", "n")] == INTEGER


def test_only_its_name_is_written():
    pipeline = load(HEAD + USE, known=KNOWN).pipeline
    assert to_data(pipeline)["nodes"]["ask"] == {
        "subgraph": {"graph": "inner"},
        "with": {"question": "${inputs.question}"},
    }
    assert load(to_yaml(pipeline), known=KNOWN).pipeline.content_hash() == pipeline.content_hash()


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "column", "hint"),
    [
        ("graph: inner", "graph: iner", "unknown-graph", 8, 23, "did you mean inner?"),
        ("question: \"${i", "qestion: \"${i", "missing-input", 7, 3, "did you mean qestion?"),
        ("with: {question", "with: {m: 1, question", "unknown-port", 9, 12, "known: n, question"),
        ("with: {question", "with: {n: 0, question", "type-mismatch", 9, 15, None),
        ("${ask.may}", "${ask.a}", "unknown-port", 10, 37, "known: b, may, said"),
        ("[sessionHistory]", "[]", "undeclared-context", 8, 23, HINT),
        ("graph: inner", "graph: inner, ports: {}", "unknown-field", 8, 30, "known: graph"),
    ],
)  # fmt: skip
def test_mistakes_in_using_a_graph(old, new, code, line, column, hint):
    found = problems_of((HEAD + USE).replace(old, new))
    place = found[0].position
    assert (found[0].code, place.line, place.column, found[0].hint) == (code, line, column, hint)


def graph(name, *uses):
    nodes = "".join(f"  n{i}: {{subgraph: {{graph: {use}}}}}\n" for i, use in enumerate(uses))
    refs = ", ".join(f'"${{n{i}.v}}"' for i in range(len(uses)))
    return (
        f"apiVersion: clustergraph/v1\nkind: Pipeline\nmetadata: {{name: {name}}}\n"
        f"nodes:\n{nodes}  v: {{value: [{refs}]}}\noutputs: {{v: '${{v}}'}}\n"
    )


@pytest.fixture
def write(tmp_path):
    def one(name, text):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return one


def messages(outcome):
    return [problem.message for problem in outcome.problems if problem.severity == "error"]


def test_used_graphs_come_first_whatever_the_order(write):
    paths = [write("a", graph("a", "b", "c")), write("b", graph("b", "c")), write("c", graph("c"))]
    found = load_together(paths, NOTHING_KNOWN)
    assert list(found) == paths
    pipeline = found[paths[0]].pipeline
    assert set(pipeline.nodes[NodeId("n0")].bodies["body"].nodes) == {"n0", "v"}
    assert all(isinstance(outcome, Loaded) for outcome in found.values())


def test_graphs_that_use_each_other_are_shown_as_a_path(write):
    paths = [write("a", graph("a", "b")), write("b", graph("b", "c")), write("c", graph("c", "a"))]
    found = load_together([*paths, write("d", graph("d", "b")), write("e", graph("e"))], NOTHING_KNOWN)
    way_round = "graphs use each other: a → b → c → a"
    assert [messages(found[path]) for path in paths] == [[way_round]] * 3
    assert messages(found[paths[0].with_name("d.yaml")]) == [way_round]
    assert isinstance(found[paths[0].with_name("e.yaml")], Loaded)


def test_a_graph_that_uses_itself(write):
    path = write("a", graph("a", "a"))
    assert messages(load_together([path], NOTHING_KNOWN)[path]) == ["graphs use each other: a → a"]


def test_a_graph_with_mistakes_cannot_be_used(write):
    bad, good = write("bad", graph("bad").replace("value:", "valu:")), write("good", graph("good", "bad"))
    found = load_together([good, bad], NOTHING_KNOWN)
    assert messages(found[good]) == ["the graph bad has mistakes of its own"]
    assert messages(found[bad]) == ["unknown kind valu"]


def test_files_beside_are_found_when_they_are_used(write, tmp_path):
    path = write("a", graph("a", "b"))
    write("deeper", graph("b", "c"))
    write("other", graph("c"))
    write("no-graph", "models: []\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff")
    beside = sorted(tmp_path.glob("*.yaml"))
    assert list(load_together([path], NOTHING_KNOWN, beside)) == [path]
    assert isinstance(load_together([path], NOTHING_KNOWN, beside)[path], Loaded)
    assert messages(load_together([path], NOTHING_KNOWN)[path]) == ["there is no graph b"]


def test_files_that_are_not_there(tmp_path, write):
    missing, binary = tmp_path / "none.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff")
    found = load_together([missing, binary, write("a", graph("a"))], NOTHING_KNOWN)
    assert isinstance(found[missing], FileNotFoundError)
    assert messages(found[binary]) == ["not UTF-8"]
    assert isinstance(found[tmp_path / "a.yaml"], Loaded)


def test_of_two_files_with_one_name_the_first_is_used(write):
    first = write("first", graph("b"))
    second = write("second", graph("b").replace("v: '${v}'", "w: '${v}'"))
    user = write("a", graph("a", "b"))
    found = load_together([first, second, user], NOTHING_KNOWN)
    assert all(isinstance(outcome, Loaded) for outcome in found.values())


def version(name, number, *uses, output="v"):
    text = graph(name, *uses).replace("{name: ", f"{{version: '{number}', name: ")
    return text.replace("{v: '${v}'}", f"{{{output}: '${{v}}'}}")


def given_by(outcome, node="n0"):
    return list(outcome.pipeline.nodes[NodeId(node)].bodies["body"].outputs)


def test_a_version_that_is_named_is_used_and_else_the_newest(write):
    old, new = write("old", version("b", "1.0", output="w")), write("new", version("b", "2.0"))
    user = write("a", graph("a", "b", "b@2.0").replace("n1.v", "n0.v"))
    both = write("c", graph("c", "b@1.0", "b").replace("n0.v", "n0.w"))
    for paths in ([user, both, new, old], [old, new, both, user]):
        found = load_together(paths, NOTHING_KNOWN)
        assert (given_by(found[user]), given_by(found[user], "n1")) == (["v"], ["v"])
        assert (given_by(found[both]), given_by(found[both], "n1")) == (["w"], ["v"])


def test_the_only_version_can_be_named(write):
    inner, user = write("b", version("b", "1.0")), write("a", graph("a", "b@1.0"))
    assert given_by(load_together([user, inner], NOTHING_KNOWN)[user]) == ["v"]
    assert given_by(load_together([user], NOTHING_KNOWN, [inner])[user]) == ["v"]
    known = Known(graphs={"b": load(version("b", "1.0")).pipeline})
    assert given_by(load_together([user], known)[user]) == ["v"]


def test_a_version_that_is_not_there(write):
    old, new = write("old", version("b", "1.0")), write("new", version("b", "2.0", "b@1.1"))
    user = write("a", graph("a", "b@1.1"))
    found = load_together([user, old, new], NOTHING_KNOWN)
    message = "there is no version 1.1 of b: there is 1.0, 2.0"
    assert messages(found[user]) == messages(found[new]) == [message]
    assert isinstance(found[old], Loaded)


def test_a_version_can_use_another_of_the_same_graph_but_not_itself(write):
    old, new = write("old", version("b", "1.0")), write("new", version("b", "2.0", "b@1.0"))
    found = load_together([new, old], NOTHING_KNOWN)
    assert given_by(found[new]) == ["v"]
    back = write("old", version("b", "1.0", "b"))
    found = load_together([new, back], NOTHING_KNOWN)
    assert messages(found[new]) == messages(found[back]) == ["graphs use each other: b → b@1.0 → b"]


def test_a_version_with_mistakes_cannot_be_used(write):
    bad, good = (
        write("bad", version("b", "1.0").replace("value:", "valu:")),
        write("good", version("b", "2.0")),
    )
    user, other = write("a", graph("a", "b@1.0")), write("c", graph("c", "b"))
    found = load_together([user, other, bad, good], NOTHING_KNOWN)
    assert messages(found[user]) == ["the graph b@1.0 has mistakes of its own"]
    assert isinstance(found[other], Loaded)
    alone = load_together([user, bad], NOTHING_KNOWN)
    assert messages(alone[user]) == ["the graph b has mistakes of its own"]


def test_graphs_that_multiply_are_refused(write):
    names = [f"g{level}" for level in range(8)]
    paths = [write("g0", graph("g0"))]
    paths += [write(name, graph(name, *[below] * 20)) for below, name in pairwise(names)]
    found = load_together(paths, NOTHING_KNOWN)
    assert "more than 10000 nodes" in messages(found[paths[3]])[0]
    assert messages(found[paths[4]])[0] == "the graph g3 has mistakes of its own"
