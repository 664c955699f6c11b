"""A plan made ready to run: everything that is the same for every run is done here, once.

Names become numbers. Every value that somebody needs has a slot; a binding becomes a function of the slots; a
node becomes a function of its inputs; a step knows how many others it waits for and who waits for it.

    inputs.question: slot 0     vector.embedding: slot 1     search.documents: slot 2 …
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from msgspec import UNSET

from graphs.bindings import CONTEXT, INPUTS, Binding, Items, Literal, Record, Ref, references
from graphs.conditions import ConditionError, operands_of, predicate_of
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Evaluate, Perform, Resources
from runtime.executor.kinds.registry import evaluator, performer
from runtime.plan import ExecutionPlan, ExecutionStep, PlannedNode

Slots = list[Any]
Getter = Callable[[Slots], Any]
Guard = Callable[[Slots], str | None]
"""Why a node is skipped, for people; None where it is not. Raises `NodeError`."""

ABSENT: Any = object()
"""What is in the slot of an output of a node that was skipped."""


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
    guard: Guard | None = None
    """Whether it is to be skipped; absent for a node that never is."""
    skipped: tuple[int, ...] = ()
    """Slots of its outputs: absent where it is skipped."""


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
    absent = _absent(plan)
    steps = _steps(plan, slots, absent, resources)
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
        outputs=tuple((name, _output(plan, name, slots, absent)) for name in plan.outputs),
        readers=tuple(readers),
    )


def _slots(plan: ExecutionPlan) -> dict[Ref, int]:
    """A number for every value that is needed."""
    bindings = [binding for step in plan.steps for node in step.nodes for binding in node.bindings()]
    refs = dict.fromkeys(
        ref for binding in [*bindings, *plan.outputs.values()] for ref in references(binding)
    )
    return {ref: index for index, ref in enumerate(refs)}


def _absent(plan: ExecutionPlan) -> Set[Ref]:
    """The values that may be absent: outputs of nodes that may be skipped."""
    absent: set[Ref] = set()
    for step in plan.steps:
        for node in step.nodes:
            if node.when is not None or _needed(node, absent):
                absent.update(Ref(node.name, port) for port in node.spec.outputs({}))
    return absent


def _needed(node: PlannedNode, absent: Set[Ref]) -> list[tuple[str, Ref]]:
    """The inputs without which the node cannot run, of those that may be absent."""
    given = [(port, ref) for port, ref in node.inputs.items() if isinstance(ref, Ref) and ref in absent]
    if not given:
        return []
    ports = node.spec.inputs()
    return [(port, ref) for port, ref in given if ports[port].required]


def _steps(
    plan: ExecutionPlan, slots: Mapping[Ref, int], absent: Set[Ref], resources: Resources
) -> list[PreparedStep]:
    index_of = {step.id: index for index, step in enumerate(plan.steps)}
    successors: list[list[int]] = [[] for _ in plan.steps]
    for index, step in enumerate(plan.steps):
        for needed in step.depends_on:
            successors[index_of[needed]].append(index)
    return [
        PreparedStep(
            nodes=tuple(_node(node, step, slots, absent, resources) for node in step.nodes),
            inline=step.backend == "inline",
            waits_for=len(step.depends_on),
            successors=tuple(reversed(successors[index])),
            reads=_slots_of((b for node in step.nodes for b in node.bindings()), slots),
            priority=step.priority,
        )
        for index, step in enumerate(plan.steps)
    ]


def _node(
    node: PlannedNode,
    step: ExecutionStep,
    slots: Mapping[Ref, int],
    absent: Set[Ref],
    resources: Resources,
) -> PreparedNode:
    inline = step.backend == "inline"
    ports = [(port, Ref(node.name, port)) for port in node.spec.outputs({})]
    return PreparedNode(
        name=node.name,
        kind=node.spec.kind(),
        inputs=tuple(
            (port, _input(node, port, binding, slots, absent)) for port, binding in node.inputs.items()
        ),
        outputs=tuple((port, slots[ref]) for port, ref in ports if ref in slots),
        evaluate=evaluator(node.spec, resources) if inline else None,
        perform=None if inline else performer(node.spec, resources),
        guard=_guard(node, slots, absent),
        skipped=tuple(slots[ref] for _, ref in ports if ref in slots),
    )


def _guard(node: PlannedNode, slots: Mapping[Ref, int], absent: Set[Ref]) -> Guard | None:
    needed = [(port, slots[ref]) for port, ref in _needed(node, absent)]
    when = node.when
    if when is None and not needed:
        return None
    holds = None if when is None else predicate_of(when)
    looks_at = [_or(_getter(each, slots, absent), None) for each in operands_of(when)]

    def guard(values: Slots) -> str | None:
        for port, slot in needed:
            if values[slot] is ABSENT:
                return f"its input {port} is absent"
        if holds is None:
            return None
        try:
            return None if holds([get(values) for get in looks_at]) else "its condition does not hold"
        except ConditionError as error:
            raise NodeError(f"the condition cannot be evaluated: {error}") from error

    return guard


def _input(
    node: PlannedNode, port: str, binding: Binding, slots: Mapping[Ref, int], absent: Set[Ref]
) -> Getter:
    get = _getter(binding, slots, absent)
    if not isinstance(binding, Ref) or binding not in absent:
        return get
    default = node.spec.inputs()[port].default
    return _or(get, None if default is UNSET else default)


def _output(plan: ExecutionPlan, name: str, slots: Mapping[Ref, int], absent: Set[Ref]) -> Getter:
    return _or(_getter(plan.outputs[name], slots, absent), plan.defaults.get(name))


def _or(get: Getter, default: Any) -> Getter:
    """The default where the value is absent."""

    def get_or(values: Slots) -> Any:
        value = get(values)
        return default if value is ABSENT else value

    return get_or


def _getter(binding: Binding, slots: Mapping[Ref, int], absent: Set[Ref]) -> Getter:
    """What is absent inside a list or record is null."""
    match binding:
        case Ref():
            return itemgetter(slots[binding])
        case Literal(value=value):
            return lambda _values: value
        case Items(items=items):
            getters = [_nested(item, slots, absent) for item in items]
            return lambda values: [get(values) for get in getters]
        case Record(fields=fields):
            named = [(name, _nested(item, slots, absent)) for name, item in fields.items()]
            return lambda values: {name: get(values) for name, get in named}


def _nested(binding: Binding, slots: Mapping[Ref, int], absent: Set[Ref]) -> Getter:
    get = _getter(binding, slots, absent)
    return _or(get, None) if isinstance(binding, Ref) and binding in absent else get


def _slots_of(bindings: Iterable[Binding], slots: Mapping[Ref, int]) -> tuple[int, ...]:
    return tuple({slots[ref]: None for binding in bindings for ref in references(binding)})
