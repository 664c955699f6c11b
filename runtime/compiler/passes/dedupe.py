"""Stage 4, dedupe: what would be computed twice is computed once (common sub-expression elimination).

Reason: a model call saved is seconds saved. Two pure nodes are one when they and all that flows into them are
the same, which their digests say, and they come after the same nodes; a node that samples stays on its own.

    question ─► embed_a ─► search_a ─► …         question ─► embed_a ─► search_a ─► …
            └─► embed_b ─► search_b ─► …   ──►                      └─► search_b ─► …
"""

from __future__ import annotations

import networkx as nx
from msgspec.structs import replace

from graphs.bindings import Binding, Ref
from graphs.pipeline import NodeId
from runtime.compiler.draft import Change, Draft, DraftNode, substitute, substituted
from runtime.compiler.fingerprint import digest_of


def dedupe(draft: Draft) -> Draft:
    """Of equal pure nodes the one written first stays."""
    rank = {node_id: index for index, node_id in enumerate(draft.nodes)}
    order = list(nx.lexicographical_topological_sort(draft.graph, key=lambda node_id: rank[node_id]))
    instead: dict[Ref, Binding] = {}
    digests: dict[str, str] = {}
    first: dict[tuple[str, frozenset[NodeId]], NodeId] = {}
    merged: dict[NodeId, NodeId] = {}
    nodes: dict[NodeId, DraftNode] = {}
    changes: list[Change] = []
    for node_id in order:
        node = draft.nodes[node_id]
        inputs = {port: substitute(binding, instead) for port, binding in node.inputs.items()}
        after = tuple(dict.fromkeys(merged.get(other, other) for other in node.after))
        pure = node.spec.effects == "pure"
        when = substituted(node.when, instead)
        digest = digest_of(node.spec, inputs, digests, when)
        same = first.get((digest, frozenset(after))) if pure else None
        if same is not None:
            merged[node_id] = same
            instead |= {Ref(node_id, port): Ref(same, port) for port in node.spec.outputs({})}
            changes.append(Change(node_id, f"is {same}", "the same computation on the same inputs"))
            continue
        digests[node_id] = digest if pure else node_id
        if pure:
            first[digest, frozenset(after)] = node_id
        nodes[node_id] = replace(node, inputs=inputs, after=after, when=when)
    ordered = {node_id: nodes[node_id] for node_id in draft.nodes if node_id in nodes}
    outputs = {name: substitute(binding, instead) for name, binding in draft.outputs.items()}
    return draft.becomes(ordered, outputs, tuple(changes))
