"""A plan made ready to run: everything that is the same for every run is done here, once.

Names become numbers. Every value that somebody needs has a slot; a binding becomes a function of the slots; a
node becomes a function of its inputs; a step knows how many others it waits for and who waits for it.

    inputs.question: slot 0     vector.embedding: slot 1     search.documents: slot 2 …
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from graphs.bindings import CONTEXT, INPUTS, Binding, Items, Literal, Record, Ref, references
from runtime.executor.kinds.kind import Evaluate, Perform, Resources
from runtime.executor.kinds.registry import evaluator, performer
from runtime.plan import ExecutionPlan, ExecutionStep, PlannedNode

Slots = list[Any]
Getter = Callable[[Slots], Any]


@dataclass(frozen=True, slots=True)
class PreparedNode:
    name: str
    kind: str
    inputs: tuple[tuple[str, Getter], ...]
    outputs: tuple[tuple[str, int], ...]
    """Ports that somebody needs, and their slots."""
    evaluate: Evaluate | None
    perform: Perform | None
    """Exactly one of the two is there."""


@dataclass(frozen=True, slots=True)
class PreparedStep:
    nodes: tuple[PreparedNode, ...]
    inline: bool
    waits_for: int
    """Number of steps that must be done first."""
    successors: tuple[int, ...]
    """Steps that wait for this one, the most urgent last."""
    reads: tuple[int, ...]
    """Slots that it needs, each once."""
    priority: int


@dataclass(frozen=True, slots=True)
class PreparedPlan:
    steps: tuple[PreparedStep, ...]
    roots: tuple[int, ...]
    """Steps that wait for nothing, the most urgent last."""
    inputs: tuple[tuple[str, int], ...]
    history: int | None
    """Slot of the conversation, where somebody needs it."""
    outputs: tuple[tuple[str, Getter], ...]
    readers: tuple[int, ...]
    """For each slot how many steps read it; one more where an output does."""


def prepare(plan: ExecutionPlan, resources: Resources) -> PreparedPlan:
    """Raises `KeyError` naming a model or index of the plan that is not there."""
    slots = _slots(plan)
    steps = _steps(plan, slots, resources)
    readers = [0] * len(slots)
    for step in steps:
        for slot in step.reads:
            readers[slot] += 1
    for slot in _slots_of(plan.outputs.values(), slots):
        readers[slot] += 1
    return PreparedPlan(
        steps=tuple(steps),
        roots=tuple(index for index in reversed(range(len(steps))) if steps[index].waits_for == 0),
        inputs=tuple((ref.port, slot) for ref, slot in slots.items() if ref.owner == INPUTS),
        history=slots.get(Ref(CONTEXT, "sessionHistory")),
        outputs=tuple((name, _getter(binding, slots)) for name, binding in plan.outputs.items()),
        readers=tuple(readers),
    )


def _slots(plan: ExecutionPlan) -> dict[Ref, int]:
    """A number for every value that is needed."""
    bindings = [binding for step in plan.steps for node in step.nodes for binding in node.inputs.values()]
    refs = dict.fromkeys(
        ref for binding in [*bindings, *plan.outputs.values()] for ref in references(binding)
    )
    return {ref: index for index, ref in enumerate(refs)}


def _steps(plan: ExecutionPlan, slots: Mapping[Ref, int], resources: Resources) -> list[PreparedStep]:
    index_of = {step.id: index for index, step in enumerate(plan.steps)}
    successors: list[list[int]] = [[] for _ in plan.steps]
    for index, step in enumerate(plan.steps):
        for needed in step.depends_on:
            successors[index_of[needed]].append(index)
    return [
        PreparedStep(
            nodes=tuple(_node(node, step, slots, resources) for node in step.nodes),
            inline=step.backend == "inline",
            waits_for=len(step.depends_on),
            successors=tuple(reversed(successors[index])),
            reads=_slots_of((b for node in step.nodes for b in node.inputs.values()), slots),
            priority=step.priority,
        )
        for index, step in enumerate(plan.steps)
    ]


def _node(
    node: PlannedNode, step: ExecutionStep, slots: Mapping[Ref, int], resources: Resources
) -> PreparedNode:
    inline = step.backend == "inline"
    ports = [(port, Ref(node.name, port)) for port in node.spec.outputs({})]
    return PreparedNode(
        name=node.name,
        kind=node.spec.kind(),
        inputs=tuple((port, _getter(binding, slots)) for port, binding in node.inputs.items()),
        outputs=tuple((port, slots[ref]) for port, ref in ports if ref in slots),
        evaluate=evaluator(node.spec, resources) if inline else None,
        perform=None if inline else performer(node.spec, resources),
    )


def _getter(binding: Binding, slots: Mapping[Ref, int]) -> Getter:
    match binding:
        case Ref():
            return itemgetter(slots[binding])
        case Literal(value=value):
            return lambda _values: value
        case Items(items=items):
            getters = [_getter(item, slots) for item in items]
            return lambda values: [get(values) for get in getters]
        case Record(fields=fields):
            named = [(name, _getter(item, slots)) for name, item in fields.items()]
            return lambda values: {name: get(values) for name, get in named}


def _slots_of(bindings: Iterable[Binding], slots: Mapping[Ref, int]) -> tuple[int, ...]:
    return tuple({slots[ref]: None for binding in bindings for ref in references(binding)})
