"""Stage 1, validate: only a pipeline that makes sense goes on, with every input bound.

Reason: later stages then need no `if` for what may be missing or wrong.

    embed ─► search(embedding)              embed ─► search(embedding, top_k = 3)
    ask ─► answer(prompt)            ──►    ask ─► answer(prompt, history = [])
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from graphs import validation
from graphs.bindings import Literal
from graphs.conditions import condition
from graphs.errors import PipelineError
from graphs.inference import Typed, typed
from graphs.pipeline import Body, Node, NodeId, Pipeline
from runtime.compiler.catalog import Catalog
from runtime.compiler.draft import Change, Draft, DraftBody, DraftNode, inside


def validate(pipeline: Pipeline, catalog: Catalog | None) -> Draft:
    """The first draft. Raises `PipelineError` with every mistake."""
    problems = validation.check(pipeline)
    if any(problem.severity == "error" for problem in problems):
        raise PipelineError(problems)
    types = typed(pipeline)
    changes: list[Change] = []
    nodes = _nodes(pipeline.nodes, types, "", changes)
    return Draft(
        pipeline=pipeline,
        catalog=catalog,
        types=types,
        nodes=nodes,
        outputs=dict(pipeline.outputs),
        changes=tuple(changes),
    )


def _nodes(
    nodes: Mapping[NodeId, Node], types: Typed, path: str, changes: list[Change]
) -> dict[NodeId, DraftNode]:
    """The nodes of one scope, which see values of `types`."""
    drafted = {}
    for node_id, node in nodes.items():
        defaults = _defaults(node)
        changes += [
            Change(path + node_id, f"{port} = {binding.value!r:.40}", "not given, so the default")
            for port, binding in defaults.items()
        ]
        bodies = {
            key: _body(body, types, types.bodies[node_id][key], inside(path + node_id, key), changes)
            for key, body in node.bodies.items()
        }
        drafted[node_id] = DraftNode(
            spec=node.spec,
            inputs={**defaults, **node.inputs},
            after=node.after,
            when=None if node.when is None else condition(node.when, types.refs),
            bodies=bodies,
            retry=node.retry,
            timeout_s=node.timeout_s,
            fallback=node.fallback,
            effects=node.effects,
            cache=node.cache,
        )
    return drafted


def _body(body: Body, around: Typed, types: Typed, path: str, changes: list[Change]) -> DraftBody:
    return DraftBody(
        nodes=_nodes(body.nodes, types, path, changes),
        outputs=dict(body.outputs),
        when=None if body.when is None else condition(body.when, around.refs),
        until=None if body.until is None else condition(body.until, types.refs),
        defaults=body.defaults,
    )


def _defaults(node: Node) -> dict[str, Literal]:
    return {
        name: Literal(None if port.default is UNSET else port.default)
        for name, port in node.spec.inputs().items()
        if name not in node.inputs
    }
