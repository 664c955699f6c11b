"""A pipeline on its way through the compiler: what every stage takes and gives.

Stages never change a draft: they make the next one, and say in `changes` what they did and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec
import networkx as nx
from msgspec.structs import replace as replace_field

from graphs.bindings import RESERVED, Binding, Items, Literal, Record, Ref, references
from graphs.conditions import Condition, operands_of
from graphs.nodes.registry import AnySpec
from graphs.pipeline import NodeId, Pipeline
from graphs.validation import Typed
from runtime.compiler.catalog import Catalog
from runtime.plan import Backend


class Change(msgspec.Struct, frozen=True):
    """One thing that a stage did."""

    node: str
    what: str
    reason: str


class DraftNode(msgspec.Struct, frozen=True):
    """A node, with what the stages so far have found out about it."""

    spec: AnySpec
    inputs: Mapping[str, Binding]
    """Every input port is bound."""
    after: tuple[NodeId, ...] = ()
    """Nodes that it waits for without taking anything."""
    when: Condition | None = None
    """Where it does not hold the node is skipped."""
    group: NodeId | None = None
    """Set by `fuse`: nodes of one group run as one step. Named after one of them."""
    backend: Backend = "inline"
    """Set by `assign`."""
    pool: str | None = None
    """Set by `assign`."""
    seconds: float = 0.0
    """Set by `order`: estimated duration."""
    remaining_s: float = 0.0
    """Set by `order`: estimated time from its start to the end of the run."""
    priority: int = 0
    """Set by `order`."""

    def bindings(self) -> Iterator[Binding]:
        """All that the node takes or looks at."""
        yield from self.inputs.values()
        yield from operands_of(self.when)


@dataclass(frozen=True)
class Draft:
    pipeline: Pipeline
    catalog: Catalog | None
    """None: nothing is known of the deployment, and what the pipeline names is taken to exist."""
    types: Typed
    nodes: Mapping[NodeId, DraftNode]
    outputs: Mapping[str, Binding]
    changes: tuple[Change, ...] = field(default=())
    """Of the last stage."""

    @cached_property
    def graph(self) -> nx.DiGraph[NodeId]:
        """The nodes, with an edge from each to those that take its values or come after it."""
        graph: nx.DiGraph[NodeId] = nx.DiGraph()
        graph.add_nodes_from(self.nodes)
        for node_id, node in self.nodes.items():
            for binding in node.bindings():
                for ref in references(binding):
                    if ref.owner in self.nodes:
                        graph.add_edge(NodeId(ref.owner), node_id)
            graph.add_edges_from((other, node_id) for other in node.after)
        return graph

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


def owners(bindings: Iterable[Binding]) -> dict[NodeId, None]:
    """The nodes that `bindings` refer to, each once, in the order in which they occur."""
    refs = (ref for binding in bindings for ref in references(binding))
    return {NodeId(ref.owner): None for ref in refs if ref.owner not in RESERVED}


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
