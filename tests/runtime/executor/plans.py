"""Plans written by hand, as they come out of the compiler, and ways to run them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from graphs.bindings import Ref, parse, references
from graphs.conditions import condition
from graphs.ports import ANY, Port
from runtime.executor.kinds.kind import Resources
from runtime.executor.kinds.registry import runs_inline
from runtime.plan import ExecutionPlan, ExecutionStep, PlannedBody, PlannedNode, StepId
from runtime.request import RunRequest
from runtime.runner import Runner
from tests.runtime.parts import Shelf, finished, pools


def node(name: str, spec, bodies=None, when: str | None = None, policies=None, **inputs) -> PlannedNode:
    """`inputs` are bindings as in YAML."""
    bound = {port: parse(value) for port, value in inputs.items()}
    given = None if when is None else condition(when, {})
    return PlannedNode(name, spec, bound, name, given, bodies or {}, **(policies or {}))


def body(*nodes: PlannedNode, when: str | None = None, until: str | None = None, **outputs) -> PlannedBody:
    return PlannedBody(
        _steps(nodes),
        {name: parse(value) for name, value in outputs.items()},
        None if when is None else condition(when, {}),
        None if until is None else condition(until, {}),
    )


def plan(*nodes: PlannedNode, inputs: Iterable[str] = ("question",), **outputs: Any) -> ExecutionPlan:
    return ExecutionPlan(
        graph="g",
        version="1",
        description="",
        hash="h",
        inputs={name: Port(ANY, default=None) for name in inputs},
        reads=(),
        steps=_steps(nodes),
        outputs={name: parse(value) for name, value in outputs.items()},
        output_types=dict.fromkeys(outputs, ANY),
        models=(),
        indexes=(),
        token_bound=0,
    )


def _steps(nodes: tuple[PlannedNode, ...]) -> tuple[ExecutionStep, ...]:
    """Each node is a step of its own."""
    names = {each.name for each in nodes}
    return tuple(
        ExecutionStep(StepId(each.name), _backend(each), (each,), tuple(sorted(_owners(each) & names)))
        for each in nodes
    )


def _backend(each: PlannedNode):
    plain = runs_inline(each.spec) and not (each.retry or each.timeout_s or each.fallback)
    return "inline" if plain else "task"


def _owners(each: PlannedNode) -> set[str]:
    refs: list[Ref] = [ref for binding in each.bindings() for ref in references(binding)]
    return {ref.owner for ref in refs}


def runner_of(made: ExecutionPlan, **models) -> Runner:
    """Over the usual pools, with those given in their place."""
    return Runner([made], Resources(pools() | models, {"manual": Shelf()}))


def asked(timeout_s: float = 30, stream: bool = False, **inputs) -> RunRequest:
    return RunRequest("run-1", "g", inputs, time.time() + timeout_s, stream=stream)


async def outputs_of(made: ExecutionPlan, **inputs) -> dict[str, Any]:
    return (await finished(runner_of(made), asked(**inputs))).outputs
