"""Pipelines with nodes inside nodes, for the tests of the compiler."""

from __future__ import annotations

from typing import Any

from graphs.bindings import Ref, parse
from graphs.nodes.branch import Branch
from graphs.nodes.embed import Embed
from graphs.nodes.llm import Llm
from graphs.nodes.loop import Loop
from graphs.nodes.map import Map
from graphs.nodes.prompt import Prompt
from graphs.nodes.value import Value
from graphs.pipeline import Body, Metadata, Node, NodeId, Pipeline
from graphs.ports import STRING, Port, list_of

PURE = Llm(model="small", max_tokens=8, temperature=0.0)
SAMPLING = Llm(model="small", max_tokens=8)
EMBED = Embed(model="embedder")


def node(spec, /, *, after=(), when=None, bodies=None, **given: Any) -> Node:
    """A node, what it is given written as in YAML."""
    inputs = {port: parse(value) for port, value in given.items()}
    return Node(spec, inputs, tuple(map(NodeId, after)), when, bodies or {})


def body(nodes: dict[str, Node], when=None, until=None, **outputs: Any) -> Body:
    return Body(
        {NodeId(name): each for name, each in nodes.items()},
        {name: parse(value) for name, value in outputs.items()},
        when,
        until,
    )


def mapped(over: Any, inner: Body, *, called="item", **settings: Any) -> Node:
    return node(Map(as_=called, **settings), bodies={"body": inner}, over=over)


def looped(inner: Body, *, called="state", max_iterations=4, **state: Any) -> Node:
    return node(Loop(max_iterations, called, tuple(sorted(state))), bodies={"body": inner}, **state)


def branched(*cases: Body) -> Node:
    return node(Branch(cases[-1].when is None), bodies={str(index): case for index, case in enumerate(cases)})


def prompt(template: str, **given: Any) -> Node:
    return node(Prompt(template=template), **given)


def value(given: Any) -> Node:
    return node(Value(), value=given)


def pipeline(nodes: dict[str, Node], **outputs: str) -> Pipeline:
    """With the inputs `question`, a text, `list`, a list of texts, and `level`, a text."""
    refs = {name: parse(text) for name, text in outputs.items()}
    return Pipeline(
        Metadata("x"),
        {NodeId(name): each for name, each in nodes.items()},
        {name: ref for name, ref in refs.items() if isinstance(ref, Ref)},
        {"question": Port(STRING), "list": Port(list_of(STRING)), "level": Port(STRING)},
    )


def search() -> Pipeline:
    """list ─► search (map: ask ─► each) ─► answer"""
    inner = {
        "ask": prompt("Find {{ q }}", q="${item.value}"),
        "each": node(PURE, prompt="${ask.text}"),
    }
    return pipeline(
        {
            "search": mapped("${inputs.list}", body(inner, text="${each.text}"), max_concurrency=4),
            "say": prompt("{{ found }}", found="${search.text}"),
            "answer": node(SAMPLING, prompt="${say.text}"),
        },
        text="${answer.text}",
    )
