"""A pipeline on its way through the compiler: what every stage takes and gives.

Stages never change a draft: they make the next one, and say in `changes` what they did and why. The nodes
inside a node are a scope of their own, with a graph of their own, so a stage is a function of one scope that
calls itself for the scopes inside. What a body refers to around it counts as taken by the node that it is in:

    draft:  list ─► search ─► answer          search takes list (its items) and top_k (inside)
            top_k ────┘  └ body: item ─► each
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec
import networkx as nx
from msgspec.structs import replace as replace_field

from graphs.bindings import RESERVED, Binding, Items, Literal, Record, Ref, references
from graphs.conditions import Condition, operands_of
from graphs.inference import Typed
from graphs.nodes.registry import AnySpec
from graphs.nodes.spec import Effects
from graphs.pipeline import Cache, Fallback, NodeId, Pipeline, Retry, port_names
from runtime.compiler.catalog import Catalog
from runtime.plan import Backend, Warm

_WORSE: tuple[Effects, ...] = ("pure", "idempotent", "effectful")


class Change(msgspec.Struct, frozen=True):
    """One thing that a stage did."""

    node: str
    """Its path: for a node in a body the names of those that it is in come first."""
    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Nodes that see each other, and what they give."""

    nodes: Mapping[NodeId, DraftNode]
    outputs: Mapping[str, Binding]

    @cached_property
    def graph(self) -> nx.DiGraph[NodeId]:
        """The nodes, with an edge from each to those that take its values or come after it."""
        graph: nx.DiGraph[NodeId] = nx.DiGraph()
        graph.add_nodes_from(self.nodes)
        for node_id, node in self.nodes.items():
            for owner in owners(node.bindings()):
                if owner in self.nodes:
                    graph.add_edge(owner, node_id)
            graph.add_edges_from((other, node_id) for other in node.after)
        return graph

    def sorted(self) -> Iterator[NodeId]:
        """The nodes, each after those that it waits for; else in the order in which they are written."""
        rank = {node_id: index for index, node_id in enumerate(self.nodes)}
        return nx.lexicographical_topological_sort(self.graph, key=rank.__getitem__)

    def results(self) -> Iterator[Binding]:
        """What is taken from the nodes in the end, in an order that does not depend on how it is written."""
        for name in sorted(self.outputs):
            yield self.outputs[name]


@dataclass(frozen=True, kw_only=True)
class DraftBody(Scope):
    """The nodes inside a node."""

    when: Condition | None = None
    """Over what is around the node: whether a case applies."""
    until: Condition | None = None
    """Over what the body sees: whether a loop ends after this pass."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """By name of an output: its value where what it refers to is absent, in place of null."""

    def results(self) -> Iterator[Binding]:
        """As of every scope; the last is what its condition looks at."""
        yield from super().results()
        yield from operands_of(self.until)

    def references(self) -> Iterator[Ref]:
        """Every value that is referred to in here, whether it is of the body or from around it."""
        for node in self.nodes.values():
            for binding in node.bindings():
                yield from references(binding)
        for binding in self.results():
            yield from references(binding)


class DraftNode(msgspec.Struct, frozen=True):
    """A node, with what the stages so far have found out about it."""

    spec: AnySpec
    inputs: Mapping[str, Binding]
    """Every input port is bound."""
    after: tuple[NodeId, ...] = ()
    """Nodes that it waits for without taking anything."""
    when: Condition | None = None
    """Where it does not hold the node is skipped."""
    bodies: Mapping[str, DraftBody] = {}
    """The nodes inside it, in the order of the cases where that counts."""
    retry: Retry | None = None
    timeout_s: float | None = None
    fallback: tuple[Fallback, ...] = ()
    effects: Effects | None = None
    """The author's word."""
    cache: Cache | None = None
    """Its own. That of the pipeline is given to it when the plan is written down."""
    group: NodeId | None = None
    """Set by `fuse`: nodes of one group run as one step. Named after one of them."""
    prefix: str | None = None
    """Set by `fuse`: digest of what the prompt of a model call begins with in every run."""
    head: str = ""
    """Set by `fuse`: the part of it that the user's message begins with."""
    backend: Backend = "inline"
    """Set by `assign`."""
    pool: str | None = None
    """Set by `assign`."""
    seconds: float = 0.0
    """Set by `order`: estimated duration."""
    remaining_s: float = 0.0
    """Set by `order`: estimated time from its start to the end of the run, or of the body that it is in."""
    priority: int = 0
    """Set by `order`."""
    warm: Warm | None = None
    """Set by `order`: when its prefix is read ahead."""
    ahead: Mapping[str, tuple[NodeId, ...]] = {}
    """Set by `order`: bodies that may begin before it is known which one is wanted, and for each the
    nodes around it that it waits for."""

    @property
    def effect(self) -> Effects:
        """The author's word, else the worst of the kind's and of its bodies'."""
        if self.effects is not None:
            return self.effects
        inner = [node.effect for body in self.bodies.values() for node in body.nodes.values()]
        return max([self.spec.effects, *inner], key=_WORSE.index)

    @property
    def has_policies(self) -> bool:
        """Whether anything but failing may follow from a failure, or it may give what it gave before."""
        tried = self.retry is not None or self.timeout_s is not None or bool(self.fallback)
        return tried or self.cache is not None

    def bindings(self) -> Iterator[Binding]:
        """All that the node takes or looks at, of what is around it."""
        yield from self.inputs.values()
        yield from operands_of(self.when)
        for key, body in self.bodies.items():
            yield from operands_of(body.when)
            inner = {*body.nodes, *self.spec.locals(key, {})}
            yield from (ref for ref in body.references() if ref.owner not in inner)

    def ports(self) -> tuple[str, ...]:
        """The names of its outputs."""
        return port_names(self.spec, {key: body.outputs for key, body in self.bodies.items()})

    def models(self) -> Iterator[str]:
        """The models that the node itself may call, those of its fallbacks last; not those of its bodies."""
        yield from (use.name for use in self.spec.uses() if use.resource == "model")
        yield from (other.model for other in self.fallback if other.model is not None)

    def indexes(self) -> Iterator[str]:
        """The indexes that the node itself searches."""
        yield from (use.name for use in self.spec.uses() if use.resource == "index")


@dataclass(frozen=True, kw_only=True)
class Draft(Scope):
    pipeline: Pipeline
    catalog: Catalog | None
    """None: nothing is known of the deployment, and what the pipeline names is taken to exist."""
    types: Typed
    changes: tuple[Change, ...] = field(default=())
    """Of the last stage."""

    def becomes(
        self,
        nodes: Mapping[NodeId, DraftNode] | None = None,
        outputs: Mapping[str, Binding] | None = None,
        changes: tuple[Change, ...] = (),
    ) -> Draft:
        """The next draft."""
        return replace(
            self,
            nodes=self.nodes if nodes is None else nodes,
            outputs=self.outputs if outputs is None else outputs,
            changes=changes,
        )

    def everything(self) -> Iterator[tuple[str, DraftNode]]:
        """Every node, those inside others too, with its path."""
        return walk(self, "")


def walk(scope: Scope, path: str) -> Iterator[tuple[str, DraftNode]]:
    """Every node of a scope that is at `path`, and of the scopes inside."""
    for node_id, node in scope.nodes.items():
        yield path + node_id, node
        for key, body in node.bodies.items():
            yield from walk(body, inside(path + node_id, key))


def inside(path: str, key: str) -> str:
    """What the paths of the nodes in a body begin with. A body without a name of its own adds none."""
    return f"{path}." if key == "body" else f"{path}.{key}."


def owners(bindings: Iterable[Binding]) -> dict[NodeId, None]:
    """The nodes that `bindings` refer to, each once, in the order in which they occur."""
    refs = (ref for binding in bindings for ref in references(binding))
    return {NodeId(ref.owner): None for ref in refs if ref.owner not in RESERVED}


def rewired(node: DraftNode, by: Mapping[Ref, Binding]) -> DraftNode:
    """The node with references to what is around it replaced, in its bodies too."""
    if not by:
        return node
    bodies = (
        node.bodies
        if node.spec.closed
        else {key: rewired_body(body, by) for key, body in node.bodies.items()}
    )
    return replace_field(
        node,
        inputs={port: substitute(binding, by) for port, binding in node.inputs.items()},
        when=substituted(node.when, by),
        bodies=bodies,
    )


def rewired_body(body: DraftBody, by: Mapping[Ref, Binding]) -> DraftBody:
    """A body with references to what is around it replaced, or to nodes of it that have moved out."""
    return replace(
        body,
        nodes={node_id: rewired(node, by) for node_id, node in body.nodes.items()},
        outputs={name: substitute(binding, by) for name, binding in body.outputs.items()},
        when=substituted(body.when, by),
        until=substituted(body.until, by),
    )


def substituted(condition: Condition | None, by: Mapping[Ref, Binding]) -> Condition | None:
    """The condition with what it looks at replaced."""
    if condition is None:
        return None
    operands = (replace_field(each, binding=substitute(each.binding, by)) for each in condition.operands)
    return Condition(condition.text, tuple(operands))


def substitute(binding: Binding, by: Mapping[Ref, Binding]) -> Binding:
    """The binding with references replaced; lists and records that have become constant become constants."""
    match binding:
        case Ref():
            return by.get(binding, binding)
        case Items(items=items):
            new = tuple(substitute(item, by) for item in items)
            constants = [item.value for item in new if isinstance(item, Literal)]
            return Literal(constants) if len(constants) == len(new) else Items(new)
        case Record(fields=fields):
            fresh = {name: substitute(item, by) for name, item in fields.items()}
            values = {name: item.value for name, item in fresh.items() if isinstance(item, Literal)}
            return Literal(values) if len(values) == len(fresh) else Record(fresh)
        case Literal():
            return binding
