"""A plan made ready to run: everything that is the same for every run is done here, once.

Names become numbers (`slots`), a node becomes a function of its inputs, a step knows how many others it waits
for and who waits for it. A body is made ready with the node it is in and has slots of its own: what it
captures from around it is copied in when it begins.

    search: map over hits        around: hits 0, top_k 1, search.texts 2
      each: uses item, top_k     inside: item 0, top_k 1 (captured from 1), each.text 2
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from cluster.messages import Message
from graphs.bindings import CONTEXT, INPUTS, Binding, Ref, references
from graphs.conditions import operands_of
from graphs.nodes.llm import Llm
from runtime.cache.savings import Savings
from runtime.executor.ahead import Candidate
from runtime.executor.chains import PreparedChain, chain_of
from runtime.executor.kinds.kind import Evaluate, Resources
from runtime.executor.kinds.registry import evaluator
from runtime.executor.policies import with_policies
from runtime.executor.premises import Premise
from runtime.executor.slots import ABSENT, Getter, Slots, Test, Values
from runtime.executor.tried_call import Try
from runtime.executor.warming import Beginning
from runtime.plan import ExecutionPlan, ExecutionStep, PlannedBody, PlannedNode, StepId, Warm

Guard = Callable[[Values], str | None]
"""Why a node is skipped, for people; None where it is not. Raises `NodeError`."""

AROUND = frozenset({INPUTS, CONTEXT})
"""Owners of what a plan is given."""


@dataclass(frozen=True, slots=True)
class PreparedNode:
    name: str
    kind: str
    inputs: tuple[tuple[str, Getter], ...]
    outputs: tuple[tuple[str, int], ...]
    """Ports that somebody needs, and their slots. Without those that follow from others."""
    evaluate: Evaluate | None
    perform: Try | None
    """Exactly one of the two is there."""
    guard: Guard | None = None
    """Whether it is to be skipped; absent for a node that never is."""
    skipped: tuple[int, ...] = ()
    """Slots of its outputs: absent where it is skipped."""
    derived: tuple[tuple[int, Callable[[Mapping[str, Any]], Any]], ...] = ()
    """Slots of outputs that follow from the others, and how."""
    live: Mapping[str, int] = field(default_factory=dict)
    """Ports that others read while it runs, and their slots."""
    follows: tuple[int, ...] = ()
    """Slots of lists that it reads while they are made."""
    bodies: Mapping[str, PreparedBody] = field(default_factory=dict)
    """The nodes inside it."""
    effectful: bool = False
    """Whether it changes the world outside, itself."""
    ahead: tuple[Candidate, ...] = ()
    """Bodies that may begin before it is known which one is wanted."""
    prefix: str | None = None
    """Digest of what its prompt begins with in every run."""
    savings: Savings = field(default_factory=Savings)
    """Where its calls to models are counted."""


class EarlyStart(NamedTuple):
    """That a step only begins a node before its condition is known, or a case of it before it is chosen."""

    step: int
    """That runs the node, when all is known."""
    candidate: Candidate
    premises: tuple[Premise, ...] | None = None
    """For a case: what has to come of conditions for it to be chosen."""


@dataclass(frozen=True, slots=True)
class PreparedStep:
    nodes: tuple[PreparedNode, ...]
    chain: PreparedChain | None
    """Where its nodes are run in processes of their own, one handing on to the next."""
    inline: bool
    waits_for: int
    """Number of steps that must be done first."""
    successors: tuple[int, ...]
    """Steps that wait for this one to end, the most urgent last."""
    reads: tuple[int, ...]
    """Slots that it needs, each once."""
    priority: int
    followers: tuple[int, ...] = ()
    """Steps that wait for this one to begin, the most urgent last."""
    cautious: tuple[int, ...] = ()
    """More of them, with effects: in a run that may go on elsewhere they wait for its end."""
    beginnings: tuple[Beginning, ...] = ()
    """Of prompts, that are read ahead when it is done."""
    early: EarlyStart | None = None
    """For a step that does nothing else."""


@dataclass(frozen=True, slots=True)
class PreparedBody:
    """The nodes of a plan, or those inside a node."""

    steps: tuple[PreparedStep, ...]
    roots: tuple[int, ...]
    """Steps that wait for nothing, the most urgent last."""
    given: tuple[tuple[Ref, int], ...]
    """What it is given each time it runs, and the slots: of a plan the inputs, of a body the locals."""
    captured: tuple[tuple[int, int], ...]
    """Slots around it, and its own slots that get what is in them."""
    outputs: tuple[tuple[str, Getter], ...]
    readers: tuple[int, ...]
    """For each slot how many steps read it; one more where an output does, or `until`."""
    holds: Test | None = None
    """Of the slots around it: whether a case applies."""
    until: Test | None = None
    """Of its own slots: whether a loop ends after this pass."""
    beginnings: tuple[Beginning, ...] = ()
    """Of prompts, that are read ahead when it begins."""


def prepare(plan: ExecutionPlan, resources: Resources) -> PreparedBody:
    """Raises `KeyError` naming a model or index of the plan that is not there."""
    body = PlannedBody(plan.steps, plan.outputs, defaults=plan.defaults)
    return _body(body, AROUND, Slots({}, frozenset()), resources)


def _body(
    body: PlannedBody,
    given: Set[str],
    around: Slots,
    resources: Resources,
) -> PreparedBody:
    """`given` are the owners of what it is given when it runs."""
    refs = dict.fromkeys(body.references())
    absent = _absent(body, {ref for ref in refs if ref in around.absent})
    slots = Slots({ref: number for number, ref in enumerate(refs)}, absent)
    steps = _steps(body, slots, resources)
    last = [*body.outputs.values(), *operands_of(body.until)]
    readers = [0] * len(refs)
    for slot in (*(slot for step in steps for slot in step.reads), *slots.of(last)):
        readers[slot] += 1
    own = {*body.names(), *given}
    return PreparedBody(
        steps=steps,
        roots=tuple(index for index in reversed(range(len(steps))) if steps[index].waits_for == 0),
        given=tuple((ref, slot) for ref, slot in slots.numbers.items() if ref.owner in given),
        captured=tuple(
            (around.numbers[ref], slot) for ref, slot in slots.numbers.items() if ref.owner not in own
        ),
        outputs=tuple(
            (name, slots.getter(binding, body.defaults.get(name))) for name, binding in body.outputs.items()
        ),
        readers=tuple(readers),
        holds=None if body.when is None else around.test(body.when),
        until=None if body.until is None else slots.test(body.until),
        beginnings=_beginnings(body, None, resources),
    )


def _beginnings(
    body: PlannedBody, after: ExecutionStep | None, resources: Resources
) -> tuple[Beginning, ...]:
    """What is read ahead when a step is done, or where there is none when the body begins."""
    done = {None} if after is None else {node.name for node in after.nodes}
    nodes = (node for step in body.steps for node in step.nodes)
    made = (_beginning(node, node.warm, resources) for node in nodes if node.warm and node.warm.after in done)
    return tuple(each for each in made if each.pool.info.keeps_prefixes)


def _beginning(node: PlannedNode, warm: Warm, resources: Resources) -> Beginning:
    assert isinstance(node.spec, Llm)
    assert node.prefix is not None
    system = [] if node.spec.system is None else [Message("system", node.spec.system)]
    return Beginning(
        node.name,
        node.spec.kind(),
        node.prefix,
        [*system, Message("user", warm.head)],
        warm.most_tokens,
        resources.pools[node.spec.model],
        resources.savings,
    )


def _absent(body: PlannedBody, absent: set[Ref]) -> Set[Ref]:
    """The values that may be absent: those from around the body, and outputs of nodes that may be skipped."""
    for step in body.steps:
        for node in step.nodes:
            if node.when is not None or _needed(node, absent):
                absent.update(Ref(node.name, port) for port in node.ports())
    return absent


def _needed(node: PlannedNode, absent: Set[Ref]) -> list[tuple[str, Ref]]:
    """The inputs without which the node cannot run, of those that may be absent."""
    given = [(port, ref) for port, ref in node.inputs.items() if isinstance(ref, Ref) and ref in absent]
    if not given:
        return []
    ports = node.spec.inputs()
    return [(port, ref) for port, ref in given if ports[port].required]


def _steps(body: PlannedBody, slots: Slots, resources: Resources) -> tuple[PreparedStep, ...]:
    index_of = {step.id: index for index, step in enumerate(body.steps)}
    successors: list[list[int]] = [[] for _ in body.steps]
    followers: list[list[int]] = [[] for _ in body.steps]
    effectful = [any(node.effects == "effectful" for node in step.nodes) for step in body.steps]
    for index, step in enumerate(body.steps):
        for needed in step.depends_on:
            successors[index_of[needed]].append(index)
        for followed in step.follows:
            followers[index_of[followed]].append(index)
    early = [each for index, step in enumerate(body.steps) for each in _early_starts(index, step, slots)]
    for number, (_, needed_steps) in enumerate(early, len(body.steps)):
        for needed in needed_steps:
            successors[index_of[needed]].append(number)
    made = tuple(
        PreparedStep(
            *_run_by(step, [body.steps[each] for each in followers[index]], slots, resources),
            inline=step.backend == "inline",
            waits_for=len(step.depends_on) + len(step.follows),
            successors=tuple(reversed(successors[index])),
            reads=slots.of(binding for node in step.nodes for binding in node.bindings()),
            priority=step.priority,
            followers=tuple(each for each in reversed(followers[index]) if not effectful[each]),
            cautious=tuple(each for each in reversed(followers[index]) if effectful[each]),
            beginnings=_beginnings(body, step, resources),
        )
        for index, step in enumerate(body.steps)
    )
    return (*made, *(_beginning_early(made[start.step], start, len(needed)) for start, needed in early))


def _early_starts(
    index: int, step: ExecutionStep, slots: Slots
) -> Iterator[tuple[EarlyStart, tuple[StepId, ...]]]:
    """What may begin before it is known to be wanted, and the steps that it waits for."""
    if step.early is not None and not _needed(step.nodes[0], slots.absent):
        (node,) = step.nodes
        yield EarlyStart(index, _candidate(node.name, [node, *_inside(node)], step.token_bound)), step.early
    for key, needed in step.cases_early.items():
        (node,) = step.nodes
        yield EarlyStart(index, _body_candidate(node, key), _premises(node, key, slots)), needed


def _premises(node: PlannedNode, case: str, slots: Slots) -> tuple[Premise, ...]:
    keys = list(node.bodies)
    before = [node.bodies[key].when for key in keys[: keys.index(case)]]
    wanted = [(node.when, True), *((when, False) for when in before), (node.bodies[case].when, True)]
    return tuple(
        Premise(slots.of(operands_of(when)), slots.test(when), is_wanted)
        for when, is_wanted in wanted
        if when is not None
    )


def _beginning_early(made: PreparedStep, start: EarlyStart, waits_for: int) -> PreparedStep:
    """The step that does nothing but begin."""
    return PreparedStep(
        nodes=made.nodes,
        chain=None,
        inline=False,
        waits_for=waits_for,
        successors=(),
        reads=(),
        priority=made.priority,
        early=start,
    )


def _run_by(
    step: ExecutionStep, followers: Sequence[ExecutionStep], slots: Slots, resources: Resources
) -> tuple[tuple[PreparedNode, ...], PreparedChain | None]:
    """The nodes of a step, and the chain that runs them where there is one."""
    if step.backend != "compiled" or len(step.nodes) == 1:
        made = (_node(node, step, slots, resources) for node in step.nodes)
        return tuple(_followed(node, followers, slots) for node in made), None
    alone = replace(resources, open_chain=None)  # without processes beside those of the chain
    nodes = tuple(_node(node, step, slots, alone) for node in step.nodes)
    may_skip = any(node.guard is not None for node in nodes)
    getters = [dict(node.inputs) for node in nodes]
    return nodes, None if may_skip else chain_of(step, getters, resources.open_chain)


def _followed(node: PreparedNode, followers: Sequence[ExecutionStep], slots: Slots) -> PreparedNode:
    """The node, knowing which of its outputs others read while it runs."""
    taken = (binding for step in followers for each in step.nodes for binding in each.bindings())
    refs = (ref for binding in taken for ref in references(binding) if ref.owner == node.name)
    live = {ref.port: slots.numbers[ref] for ref in refs}
    return dataclasses.replace(node, live=live) if live else node


def _following(node: PlannedNode, step: ExecutionStep, slots: Slots) -> tuple[int, ...]:
    refs = (ref for binding in node.bindings() for ref in references(binding))
    return tuple({slots.numbers[ref]: None for ref in refs if ref.owner in step.follows})


def _node(node: PlannedNode, step: ExecutionStep, slots: Slots, resources: Resources) -> PreparedNode:
    inline = step.backend == "inline"
    ports = [(port, Ref(node.name, port)) for port in node.ports()]
    needed = [(port, slots.numbers[ref]) for port, ref in ports if ref in slots.numbers]
    return PreparedNode(
        name=node.name,
        kind=node.spec.kind(),
        inputs=tuple((port, _input(node, port, binding, slots)) for port, binding in node.inputs.items()),
        outputs=tuple((port, slot) for port, slot in needed if port not in node.spec.derived),
        derived=tuple(
            (slot, partial(node.spec.derive, port)) for port, slot in needed if port in node.spec.derived
        ),
        evaluate=evaluator(node.spec, resources) if inline else None,
        perform=None if inline else with_policies(node, resources, _around(node, slots)),
        guard=_guard(node, slots),
        skipped=tuple(slot for _, slot in needed),
        bodies=_bodies(node, slots, resources),
        effectful=node.effects == "effectful" and not node.bodies,
        ahead=tuple(_body_candidate(node, key) for key in node.ahead),
        prefix=node.prefix,
        savings=resources.savings,
        follows=_following(node, step, slots) if step.follows else (),
    )


def _bodies(node: PlannedNode, slots: Slots, resources: Resources) -> dict[str, PreparedBody]:
    around = Slots(slots.numbers, frozenset()) if node.spec.closed else slots
    return {
        key: _body(body, node.spec.locals(key, {}).keys(), around, resources)
        for key, body in node.bodies.items()
    }


def _body_candidate(node: PlannedNode, key: str) -> Candidate:
    body = node.bodies[key]
    return _candidate(key, list(_everything(body)), sum(step.token_bound for step in body.steps))


def _candidate(key: str, nodes: Sequence[PlannedNode], tokens: int) -> Candidate:
    called = {use.name for node in nodes for use in node.spec.uses() if use.resource == "model"}
    return Candidate(key, frozenset(called), tokens, any(node.spec.streams is not None for node in nodes))


def _everything(body: PlannedBody) -> Iterator[PlannedNode]:
    """The nodes of a body, those inside others too."""
    for step in body.steps:
        for node in step.nodes:
            yield node
            yield from _inside(node)


def _inside(node: PlannedNode) -> Iterator[PlannedNode]:
    for inner in node.bodies.values():
        yield from _everything(inner)


def _around(node: PlannedNode, slots: Slots) -> tuple[int, ...]:
    """The slots of what the bodies of a node take from around it."""
    taken: dict[Ref, None] = {}
    for key, body in node.bodies.items():
        inner = {*body.names(), *node.spec.locals(key, {})}
        taken |= {ref: None for binding in operands_of(body.when) for ref in references(binding)}
        if not node.spec.closed:
            taken |= {ref: None for ref in body.references() if ref.owner not in inner}
    return tuple(slots.numbers[ref] for ref in taken)


def _guard(node: PlannedNode, slots: Slots) -> Guard | None:
    needed = [(port, slots.numbers[ref]) for port, ref in _needed(node, slots.absent)]
    if node.when is None and not needed:
        return None
    holds = None if node.when is None else slots.test(node.when)

    def guard(values: Values) -> str | None:
        for port, slot in needed:
            if values[slot] is ABSENT:
                return f"its input {port} is absent"
        return None if holds is None or holds(values) else "its condition does not hold"

    return guard


def _input(node: PlannedNode, port: str, binding: Binding, slots: Slots) -> Getter:
    if not isinstance(binding, Ref) or binding not in slots.absent:
        return slots.getter(binding)
    default = node.spec.inputs()[port].default
    return slots.getter(binding, None if default is UNSET else default)
