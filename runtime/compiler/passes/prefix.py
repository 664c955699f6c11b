"""Part of stage 5: what the prompts of model calls begin with is known before any call is made.

Reason: a replica that has read a prefix once keeps it, so calls that begin alike should meet there. The
prefix is the system message and the text of the prompt up to its first variable, on the same model: the same
characters at the same place, and so the same tokens.

    rules: "…" ─► judge (small)          judge and check begin with the same 240 characters of system message
    rules: "…" ─► check (small)   ──►    and prompt on the same model: they get the same prefix
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Iterator

from msgspec.structs import replace

from graphs.bindings import Literal, Ref
from graphs.nodes.llm import HISTORY, Llm
from graphs.nodes.prompt import Prompt
from graphs.pipeline import NodeId
from graphs.templates import outline
from runtime.compiler.draft import Change, DraftNode, Scope, inside
from runtime.compiler.fingerprint import fingerprint

MIN_PREFIX_CHARS = 64
"""Below that a prefix is shorter than a block of the engine's cache, and nothing is gained."""

Visible = ChainMap[NodeId, DraftNode]
Calls = dict[str, list[tuple[str, int]]]
"""By digest of a prefix: the calls that begin with it, by path, and its length."""


def with_prefixes(scope: Scope, around: Visible, path: str, calls: Calls) -> dict[NodeId, DraftNode]:
    """The nodes of a scope and of those inside, model calls with the digests of their prefixes."""
    visible = around.new_child(dict(scope.nodes))
    nodes = {}
    for node_id, node in scope.nodes.items():
        known: Visible = ChainMap() if node.spec.closed else visible
        bodies = {}
        for key, body in node.bodies.items():
            inner = with_prefixes(body, known, inside(path + node_id, key), calls)
            bodies[key] = dataclasses.replace(body, nodes=inner)
        digest, head = None, ""
        if isinstance(node.spec, Llm):
            system, text = node.spec.system or "", _head(node.spec, node, visible)
            if len(system) + len(text) >= MIN_PREFIX_CHARS:
                head = text
                digest = fingerprint([node.spec.model, system, head])
                calls.setdefault(digest, []).append((path + node_id, len(system) + len(head)))
        nodes[node_id] = replace(node, bodies=bodies, prefix=digest, head=head)
    return nodes


def shared(calls: Calls) -> Iterator[Change]:
    """What is said of the calls that begin as others do."""
    for alike in calls.values():
        if len(alike) > 1:
            first, second = alike[0][0], alike[1][0]
            for path, length in alike:
                other = second if path == first else first
                why = f"{len(alike)} calls on the same model begin so, as {other}"
                yield Change(path, f"prefix of {length} characters", why)


def _head(spec: Llm, node: DraftNode, visible: Visible) -> str:
    """The constant text that the user's message begins with."""
    if node.inputs[HISTORY] != Literal([]):
        return ""
    if spec.prompt is not None:
        return outline(spec.prompt).head
    prompt = node.inputs["prompt"]
    if isinstance(prompt, Literal):
        return str(prompt.value)
    source = visible.get(NodeId(prompt.owner)) if isinstance(prompt, Ref) else None
    if source is None or not isinstance(source.spec, Prompt):
        return ""
    return outline(source.spec.template).head
