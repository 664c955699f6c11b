"""Stage 1, validate: only a pipeline that makes sense goes on, with every input bound.

Reason: later stages then need no `if` for what may be missing or wrong.

    embed ─► search(embedding)              embed ─► search(embedding, top_k = 3)
    ask ─► answer(prompt)            ──►    ask ─► answer(prompt, history = [])
"""

from __future__ import annotations

from msgspec import UNSET

from graphs import validation
from graphs.bindings import Binding, Literal
from graphs.conditions import condition
from graphs.errors import PipelineError
from graphs.pipeline import Node, Pipeline
from runtime.compiler.catalog import Catalog
from runtime.compiler.draft import Change, Draft, DraftNode


def validate(pipeline: Pipeline, catalog: Catalog | None) -> Draft:
    """The first draft. Raises `PipelineError` with every mistake."""
    problems = validation.check(pipeline)
    if any(problem.severity == "error" for problem in problems):
        raise PipelineError(problems)
    types = validation.typed(pipeline)
    changes: list[Change] = []
    nodes = {}
    for node_id, node in pipeline.nodes.items():
        defaults = _defaults(node)
        changes += [
            Change(node_id, f"{port} = {binding.value!r:.40}", "not given, so the default")
            for port, binding in defaults.items()
        ]
        when = None if node.when is None else condition(node.when, types.refs)
        nodes[node_id] = DraftNode(node.spec, {**defaults, **node.inputs}, node.after, when)
    outputs: dict[str, Binding] = dict(pipeline.outputs)
    return Draft(pipeline, catalog, types, nodes, outputs, tuple(changes))


def _defaults(node: Node) -> dict[str, Literal]:
    return {
        name: Literal(None if port.default is UNSET else port.default)
        for name, port in node.spec.inputs().items()
        if name not in node.inputs
    }
