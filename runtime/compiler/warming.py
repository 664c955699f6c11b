"""Which calls have the beginning of their prompts read ahead, and when.

    ask (m) ─► search 1 s ─► answer (m)      what answer begins with is known: the engine of m reads it when
                                             ask has ended, while the search runs

Reason: an engine that has read a prefix once keeps it, and reads the rest of the prompt only. That gains time
where the engine would have nothing else to do for the run, and loses some where it has: a prompt read beside
a call of the run holds that call up. So it is done between the last call of the same model that comes before
and the node, and only where something in between takes time outside of the runner. Estimates know nothing of
what functions and servers take: where the node has run before, what it took decides.

Left out are nodes that may not be run, or whose answers may be kept from earlier runs; and models of
providers, as nobody knows which engine will serve the call. Of several replicas of ours the router takes the
one that has read the prefix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import networkx as nx
from msgspec.structs import replace

from graphs.nodes.approval import Approval
from graphs.nodes.function import Function
from graphs.nodes.llm import Llm
from graphs.pipeline import NodeId, Policies, cache_of
from runtime.compiler.catalog import Catalog
from runtime.compiler.draft import Change, Draft, DraftNode, Scope, inside
from runtime.plan import Warm

MIN_CHARS = 512
"""Of a prefix: some blocks of an engine's cache, and a quarter of a second on a CPU."""
MIN_WAIT_S = 0.1
"""What a node must have taken so that something is read meanwhile."""
AROUND_TOKENS = 128
"""That a chat template adds to two messages."""

Seconds = Mapping[str, float]
"""That nodes took in earlier runs, by path."""


def warmed(draft: Draft, measured: Seconds) -> tuple[dict[NodeId, DraftNode], list[Change]]:
    """The nodes of an ordered draft, those whose prompts are read ahead with when that is done; and why."""
    changes: list[Change] = []
    if not draft.pipeline.policies.warm:
        return dict(draft.nodes), changes
    look = _Look(draft.pipeline.policies, draft.catalog, measured, changes)
    return look.scope(draft, ""), changes


@dataclasses.dataclass(frozen=True)
class _Look:
    policies: Policies
    catalog: Catalog | None
    measured: Seconds
    changes: list[Change]

    def scope(self, scope: Scope, path: str) -> dict[NodeId, DraftNode]:
        nodes = {}
        for node_id, node in scope.nodes.items():
            bodies = {
                key: dataclasses.replace(body, nodes=self.scope(body, inside(path + node_id, key)))
                for key, body in node.bodies.items()
            }
            nodes[node_id] = replace(node, bodies=bodies, warm=self._warm(scope, node_id, path))
        return nodes

    def _warm(self, scope: Scope, node_id: NodeId, path: str) -> Warm | None:
        node = scope.nodes[node_id]
        if not isinstance(node.spec, Llm) or not _surely_asked(node, self.policies):
            return None
        length, model = len(node.spec.system or "") + len(node.head), node.spec.model
        if length < MIN_CHARS:
            return None
        before = nx.ancestors(scope.graph, node_id)
        busy = [name for name in before if _calls(scope.nodes[name], model)]
        last = min(busy, key=lambda name: _to_go(scope.nodes[name]), default=None)
        free = before.difference(busy)
        if last is not None:
            later = nx.descendants(scope.graph, last)
            free &= later
        waits = sorted(name for name in free if self._takes_time(scope, name, path, model))
        if not waits:
            return None
        if self.catalog is not None and not self.catalog.models[model].keeps_prefixes:
            why = f"{model} keeps no prefixes, or is remote: who will serve the call is not known"
            self.changes.append(Change(path + node_id, "its prefix is not read ahead", why))
            return None
        when = "at the start" if last is None else f"when {last} ends"
        why = f"nothing of the run is with {model} while {waits[0]} runs"
        self.changes.append(Change(path + node_id, f"{length} characters of its prompt are read {when}", why))
        return Warm(node.head, last, _most_tokens(node.spec, node.head))

    def _takes_time(self, scope: Scope, name: NodeId, path: str, model: str) -> bool:
        taken = self.measured.get(path + name)
        return _awaits_others(scope.nodes[name], model) if taken is None else taken >= MIN_WAIT_S


def _surely_asked(node: DraftNode, policies: Policies) -> bool:
    return node.when is None and cache_of(node.cache, node.spec, node.effect, policies) is None


def _most_tokens(spec: Llm, head: str) -> int:
    """A token is at least one byte of the texts, or of what a template adds to them."""
    texts = len((spec.system or "").encode()) + len(head.encode())
    return min(spec.max_prompt_tokens, texts + AROUND_TOKENS) + 1


def _to_go(node: DraftNode) -> float:
    """Estimated seconds between the end of the node and that of the run."""
    return node.remaining_s - node.seconds


def _calls(node: DraftNode, model: str) -> bool:
    return any(model in each.models() for each in _all_of(node))


def _awaits_others(node: DraftNode, model: str) -> bool:
    """Whether it waits for a server, a function, a person, or for another model to write."""
    return any(
        isinstance(each.spec, Function | Approval)
        or any(
            use.resource in ("host", "server")
            or (use.resource == "model" and use.task != "embed" and use.name != model)
            for use in each.spec.uses()
        )
        for each in _all_of(node)
    )


def _all_of(node: DraftNode) -> Iterator[DraftNode]:
    """The node and those inside it."""
    yield node
    for body in node.bodies.values():
        for inner in body.nodes.values():
            yield from _all_of(inner)
