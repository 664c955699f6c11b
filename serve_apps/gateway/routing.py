"""Where a call goes, and whether its key may send it there.

A model name means a pool; `graph/NAME` means a graph. Names a key may not use are not suggested to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from cluster.interface import Pool
from cluster.messages import Sampling
from cluster.tokens import Tokenizer
from graphs.versions import AT, found_in
from runtime.runner import GraphInfo
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway, Request
from serve_apps.gateway.errors import BadRequest, Forbidden, NotFound, Unavailable
from serve_apps.gateway.readiness import RUNNER, model_part
from serve_apps.gateway.rights import GRAPH_PREFIX, may_use
from serve_apps.translators.decoding import suggestion

MAX_VERSIONS_TOLD = 20
MAX_MODELS_TOLD = 20
STARTING_RETRY_AFTER_S = 5.0

VERSION_TAG: Final = "graph_version"
"""The tag under which usage has the version that answered, where calls of a graph are split."""

Task = Literal["generate", "embed"]

_ENDPOINTS: dict[Task, str] = {
    "generate": "/v1/chat/completions or /v1/completions",
    "embed": "/v1/embeddings",
}


def visible_models(gateway: Gateway, caller: Caller) -> list[str]:
    """Names of the pools and graphs that the key may call."""
    names = [*gateway.pools, *(GRAPH_PREFIX + name for name in gateway.graphs)]
    return [name for name in names if may_use(caller, name)]


class Routed(NamedTuple):
    """A graph that can run now."""

    name: str
    """With its version, where calls of the name that was asked for are split."""
    info: GraphInfo


def find_pool(request: Request, model: str, task: Task, session: str = "") -> Pool:
    """The ready pool that answers for a model: its own, or that of another that has part of its calls.

    Raises `NotFound`, `Forbidden`, `BadRequest`, `Unavailable`.
    """
    gateway, caller = request.gateway, request.caller
    if model.startswith(GRAPH_PREFIX):
        known_graph(gateway, caller, model.removeprefix(GRAPH_PREFIX))
        raise BadRequest(
            f"A graph is called on /v1/chat/completions or /v1/graphs, not here: {model!r}.",
            param="model",
            code="model_not_supported",
        )
    pool = known_pool(gateway, caller, model)
    if pool.info.task != task:
        raise BadRequest(
            f"The model {model!r} is for {_ENDPOINTS[pool.info.task]}.",
            param="model",
            code="model_not_supported",
        )
    served = _served(request, model, session, lambda name: [model_part(name)])
    _wait_for(gateway, [model_part(served)])
    return gateway.pools[served]


def check_tools(request: Request, pool: Pool, sampling: Sampling) -> None:
    """Refuses to offer tools to a model whose calls of them nobody would recognise. Raises `BadRequest`."""
    if not sampling.tools or sampling.tool_choice == "none" or pool.info.calls_tools:
        return
    gateway, caller = request.gateway, request.caller
    others = [
        name
        for name, other in gateway.pools.items()
        if other.info.task == "generate" and other.info.calls_tools and may_use(caller, name)
    ]
    instead = f" {', '.join(others[:MAX_MODELS_TOLD])} can." if others else ""
    raise BadRequest(
        f"The model {pool.info.name!r} cannot call tools: its config names no 'tool_parser' that would read "
        f"its calls. Leave 'tools' out, or ask a model that can.{instead}",
        param="tools",
        code="tools_not_supported",
    )


def find_tokenizer(request: Request, model: str) -> Tokenizer:
    """The tokenizer of a model. Raises `NotFound`, `Forbidden`, `BadRequest`."""
    gateway, caller = request.gateway, request.caller
    if model.startswith(GRAPH_PREFIX):
        known_graph(gateway, caller, model.removeprefix(GRAPH_PREFIX))
        raise BadRequest(
            f"A graph has no tokens of its own, only its models have: {model!r}.",
            param="model",
            code="model_not_supported",
        )
    known_pool(gateway, caller, model)
    tokenizer = gateway.tokenizers.get(model)
    if tokenizer is None:
        raise BadRequest(
            f"The tokenizer of the model {model!r} is not at hand here, only whoever serves it has it.",
            param="model",
            code="tokenizer_unknown",
        )
    return tokenizer


def find_graph(request: Request, name: str, session: str = "") -> Routed:
    """The graph, or the version of it, that answers for a name. Raises `NotFound`, `Forbidden`,
    `Unavailable`."""
    gateway = request.gateway
    info = known_graph(gateway, request.caller, name)
    asked = GRAPH_PREFIX + name

    def parts(version: str) -> list[str]:
        found = found_in(gateway.graphs, version.removeprefix(GRAPH_PREFIX), _version_of)
        return _parts_of(gateway, found.models) if found is not None else []

    served = _served(request, asked, session, parts)
    if served != asked:
        name = served.removeprefix(GRAPH_PREFIX)
        info = found_in(gateway.graphs, name, _version_of) or info
        request.exchange.marks[VERSION_TAG] = info.version
    wait_for_models(gateway, info.models)
    return Routed(name, info)


def wait_for_models(gateway: Gateway, models: Iterable[str]) -> None:
    """Raises `Unavailable` while the runner, or one of these models that is known, cannot answer."""
    _wait_for(gateway, _parts_of(gateway, models))


def known_graph(gateway: Gateway, caller: Caller, name: str) -> GraphInfo:
    """A graph, whether or not it can run now. Raises `NotFound`, `Forbidden`."""
    info = found_in(gateway.graphs, name, _version_of)
    if info is None and name.partition(AT)[0] in gateway.graphs:
        raise _unknown_version(gateway, caller, name)
    if info is None:
        raise _unknown_model(gateway, caller, GRAPH_PREFIX + name)
    _authorise(caller, GRAPH_PREFIX + name)
    return info


def known_pool(gateway: Gateway, caller: Caller, model: str) -> Pool:
    """A model's pool, whether or not it can answer now. Raises `NotFound`, `Forbidden`."""
    pool = gateway.pools.get(model)
    if pool is None:
        raise _unknown_model(gateway, caller, model)
    _authorise(caller, model)
    return pool


def _served(request: Request, asked: str, session: str, parts: Callable[[str], list[str]]) -> str:
    """Who answers for a name: always the same for one conversation, and for a caller that names none, but
    for as long as that cannot answer. `parts`: what somebody needs to be able to."""
    gateway, exchange, caller = request
    split = gateway.traffic.get(asked)
    if split is None:
        return asked
    order = split.order(f"{caller.tenant} {session or caller.id}")
    served = next((name for name in order if not gateway.readiness.waiting_for(parts(name))), order[0])
    exchange.added_headers.append((b"x-served-by", served.encode()))
    return served


def _parts_of(gateway: Gateway, models: Iterable[str]) -> list[str]:
    """What a graph of these models waits for."""
    return [RUNNER, *(model_part(model) for model in models if model in gateway.pools)]


def _authorise(caller: Caller, model: str) -> None:
    if not may_use(caller, model):
        raise Forbidden(f"This API key may not use {model!r}.", param="model", code="model_not_allowed")


def _wait_for(gateway: Gateway, parts: list[str]) -> None:
    waiting = gateway.readiness.waiting_for(parts)
    if waiting:
        raise Unavailable(
            f"Starting: {', '.join(waiting)}. Try again in a few seconds.",
            code="starting",
            retry_after_s=STARTING_RETRY_AFTER_S,
        )


def _version_of(info: GraphInfo) -> str:
    return info.version


def _unknown_version(gateway: Gateway, caller: Caller, asked: str) -> NotFound:
    name = asked.partition(AT)[0]
    _authorise(caller, GRAPH_PREFIX + name)
    several = [each for each in gateway.graphs if each.startswith(name + AT)]
    known = several or [f"{name}{AT}{gateway.graphs[name].version}"]
    return NotFound(
        f"The graph {name!r} has no version {asked.partition(AT)[2][:100]!r}. There is"
        f" {', '.join(GRAPH_PREFIX + each for each in known[:MAX_VERSIONS_TOLD])}.",
        param="model",
        code="version_not_found",
    )


def _unknown_model(gateway: Gateway, caller: Caller, model: str) -> NotFound:
    hint = suggestion(model, visible_models(gateway, caller))
    return NotFound(f"The model {model[:100]!r} does not exist.{hint}", param="model", code="model_not_found")
