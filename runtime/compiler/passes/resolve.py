"""Stage 2, resolve: every model and index that is named is deployed, and fit for what it is asked; templates
of prompt files become those of the nodes.

Reason: a name that means nothing, a prompt longer than any window, a vector of another model are known now,
and would else be found by the first user. That goes for the models of fallbacks too, and inside bodies.

    embed(minilm) ─► search(manual) ─► ask ─► answer(smolm2)    answer: there is no model smolm2 (did you mean
                                                                smollm2?)
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace as replace_body

from msgspec.structs import replace

from graphs.bindings import Ref
from graphs.errors import Path, PipelineError, Problem, nearest
from graphs.nodes.llm import Llm
from graphs.nodes.prompt import Prompt
from graphs.nodes.spec import Use
from graphs.pipeline import Fallback, NodeId
from runtime.compiler.catalog import Catalog
from runtime.compiler.draft import Change, Draft, DraftNode, Scope

Visible = ChainMap[NodeId, DraftNode]
"""By name, the nodes that a node may refer to."""


def resolve(draft: Draft) -> Draft:
    """Raises `PipelineError` with everything that is not there or does not fit."""
    taken = tuple(_taken(draft))
    nodes = _own(draft.nodes) if taken else draft.nodes
    if draft.catalog is None:
        return draft.becomes(nodes, changes=(*taken, *_assumed(draft)))
    problems = list(_Resolver(draft.catalog).scope(draft, ("nodes",), ChainMap()))
    if problems:
        raise PipelineError(problems)
    return draft.becomes(nodes, changes=taken)


def _taken(draft: Draft) -> Iterator[Change]:
    for path, node in draft.everything():
        if isinstance(node.spec, Llm | Prompt) and node.spec.use is not None:
            why = f"{node.spec.use} is version {node.spec.version}"
            yield Change(path, f"{node.spec.template_field} in place of its name", why)


def _own(nodes: Mapping[NodeId, DraftNode]) -> dict[NodeId, DraftNode]:
    """The nodes without where their templates came from: plans of equal templates are equal."""
    own = {}
    for node_id, node in nodes.items():
        bodies = {key: replace_body(body, nodes=_own(body.nodes)) for key, body in node.bodies.items()}
        spec = node.spec
        if isinstance(spec, Llm | Prompt):
            spec = replace(spec, use=None, version=None)
        own[node_id] = replace(node, spec=spec, bodies=bodies)
    return own


def _assumed(draft: Draft) -> Iterator[Change]:
    why = "no deployment is known, so taken to exist"
    for path, node in draft.everything():
        for model in node.models():
            yield Change(path, f"model {model}", why)
        for index in node.indexes():
            yield Change(path, f"index {index}", why)


class _Resolver:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def scope(self, scope: Scope, path: Path, around: Visible) -> Iterator[Problem]:
        visible = around.new_child(dict(scope.nodes))
        for node_id, node in scope.nodes.items():
            place = (*path, node_id)
            for use in node.spec.uses():
                yield from self._use((*place, node.spec.kind(), use.field), node, use, visible)
            for index, other in enumerate(node.fallback):
                yield from self._fallback((*place, "fallback", index, "model"), node, other)
            for key, body in node.bodies.items():
                where = (*place, *node.spec.place(key), "nodes")
                yield from self.scope(body, where, ChainMap() if node.spec.closed else visible)

    def _use(self, path: Path, node: DraftNode, use: Use, visible: Visible) -> Iterator[Problem]:
        known = self._known(use)
        if use.name not in known:
            yield _unknown(path, use, known)
        elif use.resource == "model":
            yield from self._model(path, node, use)
        elif use.resource == "index":
            yield from self._index(path, node, use, visible)

    def _known(self, use: Use) -> Collection[str]:
        catalog = self._catalog
        match use.resource:
            case "model":
                return catalog.models
            case "index":
                return catalog.indexes
            case "host":
                return catalog.hosts
            case "secret":
                return catalog.secrets
            case "server":
                return catalog.servers

    def _fallback(self, path: Path, node: DraftNode, other: Fallback) -> Iterator[Problem]:
        """A model that takes the place of another does what that does."""
        first = next((use for use in node.spec.uses() if use.resource == "model"), None)
        if other.model is None or first is None:
            return
        known = self._catalog.models
        task = first.task
        if task is None and first.name in known:
            task = known[first.name].task
        yield from self._use(path, node, Use("model", other.model, "model", task, first.window), ChainMap())

    def _model(self, path: Path, node: DraftNode, use: Use) -> Iterator[Problem]:
        models = self._catalog.models
        model = models[use.name]
        if use.task is not None and model.task != use.task:
            fit = [name for name, other in models.items() if other.task == use.task]
            hint = "these do: " + ", ".join(sorted(fit)) if fit else None
            yield Problem("wrong-model", f"the model {use.name} does not {use.task}", path, hint=hint)
            return
        bound = use.window or node.spec.tokens
        output = bound.output if model.task == "generate" else 0
        if bound.prompt + output > model.max_context:
            message = f"{bound.prompt + output} tokens do not fit into the {model.max_context} of {use.name}"
            hint = f"max_prompt_tokens can be {max(1, model.max_context - output)} at most"
            yield Problem("window", message, path, hint=hint)

    def _index(self, path: Path, node: DraftNode, use: Use, visible: Visible) -> Iterator[Problem]:
        """A vector that is looked for must come from the model that made the index."""
        index = self._catalog.indexes[use.name]
        for binding in node.inputs.values():
            source = visible.get(NodeId(binding.owner)) if isinstance(binding, Ref) else None
            if source is None or not isinstance(binding, Ref):
                continue
            for made in source.spec.uses():
                if made.task == "embed" and made.name != index.model:
                    message = (
                        f"the index {use.name} was made with {index.model}, {binding.owner} uses {made.name}"
                    )
                    yield Problem("wrong-model", message, path)


def _unknown(path: Path, use: Use, known: Collection[str]) -> Problem:
    """That something is not there; of what is only forbidden, how to allow it."""
    message, hint = f"there is no {use.resource} {use.name}", nearest(use.name, known)
    if use.resource == "host":
        message = f"the host {use.name} may not be called from this deployment"
        hint = f"its config can allow it: http: {{hosts: [{use.name}]}}"
    elif use.resource == "server":
        message = f"there is no MCP server {use.name}"
        hint = hint or "the deploy config names them under mcp"
    elif use.resource == "secret":
        message = f"the environment variable {use.name} may not be read"
        hint = f"the deploy config can allow it: http: {{env: [{use.name}]}}"
    return Problem(f"unknown-{use.resource}", message, path, hint=hint)
