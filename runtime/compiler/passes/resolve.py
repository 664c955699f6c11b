"""Stage 2, resolve: every model and index that is named is deployed, and fit for what it is asked.

Reason: a name that means nothing, a prompt longer than any window, a vector of another model are known now,
and would else be found by the first user.

    embed(minilm) ─► search(manual) ─► ask ─► answer(smolm2)    answer: there is no model smolm2 (did you mean
                                                                smollm2?)
"""

from __future__ import annotations

from collections.abc import Iterator

from graphs.bindings import Ref
from graphs.errors import PipelineError, Problem, nearest
from graphs.nodes.spec import Use
from graphs.pipeline import NodeId
from runtime.compiler.catalog import Catalog
from runtime.compiler.draft import Change, Draft, DraftNode


def resolve(draft: Draft) -> Draft:
    """Raises `PipelineError` with everything that is not there or does not fit."""
    if draft.catalog is None:
        return draft.becomes(changes=tuple(_assumed(draft)))
    problems = [
        problem
        for node_id, node in draft.nodes.items()
        for use in node.spec.uses()
        for problem in _problems(draft, draft.catalog, node_id, node, use)
    ]
    if problems:
        raise PipelineError(problems)
    return draft.becomes()


def _assumed(draft: Draft) -> Iterator[Change]:
    for node_id, node in draft.nodes.items():
        for use in node.spec.uses():
            yield Change(node_id, f"{use.resource} {use.name}", "no deployment is known, so taken to exist")


def _problems(
    draft: Draft, catalog: Catalog, node_id: NodeId, node: DraftNode, use: Use
) -> Iterator[Problem]:
    path = ("nodes", node_id, node.spec.kind(), use.field)
    known = catalog.models if use.resource == "model" else catalog.indexes
    if use.name not in known:
        message = f"there is no {use.resource} {use.name}"
        yield Problem(f"unknown-{use.resource}", message, path, hint=nearest(use.name, known))
    elif use.resource == "model":
        yield from _model_problems(catalog, node, use, path)
    else:
        yield from _index_problems(draft, catalog, node, use, path)


def _model_problems(catalog: Catalog, node: DraftNode, use: Use, path: tuple[str, ...]) -> Iterator[Problem]:
    model = catalog.models[use.name]
    if use.task is not None and model.task != use.task:
        fit = [name for name, other in catalog.models.items() if other.task == use.task]
        hint = "these do: " + ", ".join(sorted(fit)) if fit else None
        yield Problem("wrong-model", f"the model {use.name} does not {use.task}", path, hint=hint)
        return
    bound = use.window or node.spec.tokens
    output = bound.output if model.task == "generate" else 0
    if bound.prompt + output > model.max_context:
        message = f"{bound.prompt + output} tokens do not fit into the {model.max_context} of {use.name}"
        hint = f"max_prompt_tokens can be {max(1, model.max_context - output)} at most"
        yield Problem("window", message, path, hint=hint)


def _index_problems(
    draft: Draft, catalog: Catalog, node: DraftNode, use: Use, path: tuple[str, ...]
) -> Iterator[Problem]:
    """A vector that is looked for must come from the model that made the index."""
    index = catalog.indexes[use.name]
    for binding in node.inputs.values():
        if not isinstance(binding, Ref) or binding.owner not in draft.nodes:
            continue
        source = draft.nodes[NodeId(binding.owner)]
        for made in source.spec.uses():
            if made.task == "embed" and made.name != index.model:
                message = (
                    f"the index {use.name} was made with {index.model}, {binding.owner} uses {made.name}"
                )
                yield Problem("wrong-model", message, path)
