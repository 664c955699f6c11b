"""Stage 5: cheap neighbours run together, and nobody waits for it."""

import networkx as nx
from hypothesis import given

from graphs.builder import Builder
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.ports import STRING
from runtime.compiler.passes.fuse import fuse
from runtime.compiler.passes.validate import validate
from tests.graphs.shapes import chain, inline_chain, pipelines


def groups(draft):
    return {name: node.group for name, node in draft.nodes.items() if node.group}


def test_a_chain_of_prompts_is_one_group():
    draft = fuse(validate(inline_chain(4), None))
    assert groups(draft) == dict.fromkeys(("n0", "n1", "n2", "n3"), "n3")
    assert [change.what for change in draft.changes] == ["runs with n3"] * 3


def test_model_calls_are_never_in_a_group():
    assert groups(fuse(validate(chain(), None))) == {}


def test_a_node_that_another_waits_for_is_not_held_back():
    """rows feeds ask, which waits for slow, and quick, which does not."""
    b = Builder("x")
    question = b.input("question", STRING)
    slow = b.add("slow", Llm(model="m"), prompt=question)
    rows = b.add("rows", Prompt(template="{{ q }}"), q=question)
    ask = b.add("ask", Prompt(template="{{ a }}{{ b }}"), a=rows["text"], b=slow["text"])
    quick = b.add("quick", Llm(model="m"), prompt=rows["text"])
    b.output("one", b.add("answer", Llm(model="m"), prompt=ask["text"])["text"])
    b.output("two", quick["text"])
    assert groups(fuse(validate(b.build(), None))) == {}


def test_a_node_joins_those_that_alone_need_it():
    b = Builder("x")
    slow = b.add("slow", Llm(model="m"), prompt=b.input("question", STRING))
    rows = b.add("rows", Prompt(template="{{ q }}"), q=b.input("other", STRING))
    ask = b.add("ask", Prompt(template="{{ a }}{{ b }}"), a=rows["text"], b=slow["text"])
    b.output("text", b.add("answer", Llm(model="m"), prompt=ask["text"])["text"])
    assert groups(fuse(validate(b.build(), None))) == {"rows": "ask", "ask": "ask"}


@given(pipelines())
def test_groups_are_cheap_and_steps_free_of_cycles(pipeline):
    draft = fuse(validate(pipeline, None))
    steps = nx.DiGraph()
    of = {name: node.group or name for name, node in draft.nodes.items()}
    steps.add_nodes_from(of.values())
    steps.add_edges_from((of[a], of[b]) for a, b in draft.graph.edges if of[a] != of[b])
    assert nx.is_directed_acyclic_graph(steps)
    assert all(draft.nodes[name].spec.cheap for name in groups(draft))
    assert all(group in draft.nodes for group in of.values())


@given(pipelines())
def test_no_model_call_waits_for_more_than_it_needs(pipeline):
    """Fusing adds no model call to those that must end before another can start."""
    draft = fuse(validate(pipeline, None))
    members: dict[str, list[str]] = {}
    for name, node in draft.nodes.items():
        members.setdefault(node.group or name, []).append(name)
    steps = nx.DiGraph()
    of = {name: node.group or name for name, node in draft.nodes.items()}
    steps.add_nodes_from(members)
    steps.add_edges_from((of[a], of[b]) for a, b in draft.graph.edges if of[a] != of[b])
    calls = {name for name, node in draft.nodes.items() if not node.spec.cheap}
    for call in calls:
        needed = calls & nx.ancestors(draft.graph, call)
        waited = calls & {name for step in nx.ancestors(steps, call) for name in members[step]}
        assert waited == needed
