"""Every kind of node that can run. A new kind is a line here and a file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphs.nodes.registry import AnySpec
from runtime.executor.kinds import (
    agent,
    approval,
    branch,
    classify,
    embed,
    function,
    guardrail,
    http,
    llm,
    loop,
    prompt,
    rerank,
    retrieve,
    router,
    subgraph,
    tool,
    value,
)
from runtime.executor.kinds import map as map_kind
from runtime.executor.kinds.kind import Evaluate, NodeCall, Perform, Resources, Values

_INLINE: Mapping[str, Callable[[Any, Resources], Evaluate]] = {
    "guardrail": guardrail.prepare,
    "prompt": prompt.prepare,
    "retrieve": retrieve.prepare,
    "value": value.prepare,
}
_AWAITED: Mapping[str, Callable[[Any, Resources], Perform]] = {
    "agent": agent.prepare,
    "approval": approval.prepare,
    "branch": branch.prepare,
    "classify": classify.prepare,
    "embed": embed.prepare,
    "function": function.prepare,
    "http": http.prepare,
    "llm": llm.prepare,
    "loop": loop.prepare,
    "map": map_kind.prepare,
    "rerank": rerank.prepare,
    "router": router.prepare,
    "subgraph": subgraph.prepare,
    "tool": tool.prepare,
}
_NOTHING = Resources({}, {})


def evaluator(spec: AnySpec, resources: Resources = _NOTHING) -> Evaluate:
    """How a node of back end `inline` runs. Raises `KeyError` naming an index that is not there."""
    return _INLINE[spec.kind()](spec, resources)


def runs_inline(spec: AnySpec) -> bool:
    """Whether nodes of this kind are computed on the spot; else they await something."""
    return spec.kind() in _INLINE


def performer(spec: AnySpec, resources: Resources) -> Perform:
    """How a node of another back end runs. Raises `KeyError` naming a model or index that is not there."""
    if spec.kind() in _AWAITED:
        return _AWAITED[spec.kind()](spec, resources)
    evaluate = evaluator(spec, resources)

    async def perform(_call: NodeCall, inputs: Values) -> Values:
        return evaluate(inputs)

    return perform
