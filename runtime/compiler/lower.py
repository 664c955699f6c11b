"""The last draft written down as a plan."""

from __future__ import annotations

import heapq
from collections import ChainMap
from collections.abc import Mapping, Sequence, Set

import msgspec

from graphs.bindings import Ref
from graphs.nodes.branch import Branch
from graphs.pipeline import NodeId, Policies, cache_of
from graphs.ports import STRING, PortType, whole
from runtime.compiler.colocation import colocated
from runtime.compiler.draft import Draft, Scope, owners
from runtime.compiler.estimates import bound_of, demand_of
from runtime.compiler.fingerprint import Names, digests_of, fingerprint, names_inside, structure
from runtime.compiler.live import live_edges
from runtime.compiler.savings import begun_early, is_shared
from runtime.plan import ExecutionPlan, ExecutionStep, PlannedBody, PlannedChat, PlannedNode, StepId


def lower(draft: Draft) -> ExecutionPlan:
    """The plan of a draft that has been through every stage."""
    pipeline = draft.pipeline
    steps = _steps(draft, ChainMap(), pipeline.policies)
    nodes = [node for _, node in draft.everything()]
    types = draft.types.outputs
    return ExecutionPlan(
        graph=pipeline.metadata.name,
        version=pipeline.metadata.version,
        description=pipeline.metadata.description,
        hash=_hash(draft),
        inputs=pipeline.inputs,
        reads=tuple(sorted(pipeline.context.reads)),
        steps=steps,
        outputs=draft.outputs,
        output_types=types,
        defaults=pipeline.defaults,
        models=tuple(sorted({model for node in nodes for model in node.models()})),
        indexes=tuple(
            sorted({use.name for node in nodes for use in node.spec.uses() if use.resource == "index"})
        ),
        token_bound=sum(step.token_bound for step in steps)
        + sum(node.warm.most_tokens for node in nodes if node.warm is not None),
        demand=demand_of(draft),
        colocate=colocated(draft),
        policies=pipeline.policies,
        chat=_chat(draft, types),
    )


def _hash(draft: Draft) -> str:
    """Of all that decides what a run does; neither of names of nodes nor of descriptions."""
    pipeline = draft.pipeline
    ports = {name: msgspec.structs.replace(port, description="") for name, port in pipeline.inputs.items()}
    rest = msgspec.to_builtins([ports, sorted(pipeline.context.reads), pipeline.policies, pipeline.defaults])
    chat = _chat(draft, draft.types.outputs)
    talk = None if chat is None else [chat.input, chat.output]
    return fingerprint([structure(draft), rest, talk])


def _steps(scope: Scope, around: Names, policies: Policies) -> tuple[ExecutionStep, ...]:
    """One for each group and for each node without one, in an order in which they can run."""
    members: dict[NodeId, list[NodeId]] = {}
    for node_id, node in scope.nodes.items():
        members.setdefault(node.group or node_id, []).append(node_id)
    step_of = {node_id: StepId(group) for group, node_ids in members.items() for node_id in node_ids}
    digests = digests_of(scope, around)
    followed: dict[NodeId, set[StepId]] = {}
    for maker, taker in live_edges(scope):
        followed.setdefault(taker, set()).add(step_of[maker])
    steps = []
    for group, node_ids in members.items():
        planned = [_planned(scope, node_id, digests, policies) for node_id in node_ids]
        steps.append(
            _step(scope, StepId(group), planned, step_of, followed.get(group, frozenset()), policies)
        )
    return tuple(_in_order(steps))


def _planned(scope: Scope, node_id: NodeId, digests: Names, policies: Policies) -> PlannedNode:
    node = scope.nodes[node_id]
    digest = digests[node_id]
    return PlannedNode(
        name=node_id,
        spec=node.spec,
        inputs=node.inputs,
        digest=digest,
        when=node.when,
        bodies={
            key: PlannedBody(
                steps=_steps(body, names_inside(node, key, digest, digests), policies),
                outputs=body.outputs,
                when=body.when,
                until=body.until,
                defaults=body.defaults,
            )
            for key, body in node.bodies.items()
        },
        retry=node.retry,
        timeout_s=node.timeout_s,
        fallback=node.fallback,
        effects=node.effect,
        prefix=node.prefix,
        cache=cache_of(node.cache, node.spec, node.effect, policies),
        shared=is_shared(node, policies),
        ahead=tuple(node.ahead),
        warm=node.warm,
    )


def _step(
    scope: Scope,
    group: StepId,
    planned: Sequence[PlannedNode],
    step_of: Mapping[NodeId, StepId],
    followed: Set[StepId],
    policies: Policies,
) -> ExecutionStep:
    nodes = [scope.nodes[node.name] for node in planned]
    needed = {
        step_of[other]
        for node in nodes
        for other in (*owners(node.bindings()), *node.after)
        if other in step_of
    }
    early = None if len(planned) > 1 else begun_early(scope, planned[0].name, policies)
    return ExecutionStep(
        id=group,
        backend=nodes[0].backend,
        nodes=tuple(planned),
        depends_on=tuple(sorted(needed - followed - {group})),
        follows=tuple(sorted(followed)),
        early=None if early is None else tuple(sorted({step_of[each] for each in early})),
        cases_early={
            key: tuple(sorted({step_of[each] for each in waited}))
            for node in nodes
            for key, waited in node.ahead.items()
            if isinstance(node.spec, Branch)
        },
        pool=nodes[0].pool,
        priority=min(node.priority for node in nodes),
        seconds=sum(node.seconds for node in nodes),
        remaining_s=max(node.remaining_s for node in nodes),
        token_bound=sum(bound_of(node).total for node in nodes),
    )


def _in_order(steps: list[ExecutionStep]) -> list[ExecutionStep]:
    """Each after those it depends on; of those that are ready the one with most time to go first."""
    by_id = {step.id: step for step in steps}
    waiting = {step.id: len(step.depends_on) + len(step.follows) for step in steps}
    consumers: dict[StepId, list[StepId]] = {step.id: [] for step in steps}
    for step in steps:
        for needed in (*step.depends_on, *step.follows):
            consumers[needed].append(step.id)
    ready = [(-step.remaining_s, step.id) for step in steps if waiting[step.id] == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, step_id = heapq.heappop(ready)
        ordered.append(by_id[step_id])
        for consumer in consumers[step_id]:
            waiting[consumer] -= 1
            if waiting[consumer] == 0:
                heapq.heappush(ready, (-by_id[consumer].remaining_s, consumer))
    return ordered


def _chat(draft: Draft, types: Mapping[str, PortType]) -> PlannedChat | None:
    """As declared; else where there is only one way: one string that must be given, one to reply with."""
    pipeline = draft.pipeline
    if pipeline.chat is not None:
        said, reply = pipeline.chat.input, pipeline.chat.output
    else:
        required = [name for name, port in pipeline.inputs.items() if port.required]
        texts = [name for name, port_type in types.items() if whole(port_type) == STRING]
        if len(required) != 1 or pipeline.inputs[required[0]].type != STRING:
            return None
        if "text" not in texts and len(texts) != 1:
            return None
        said, reply = required[0], "text" if "text" in texts else texts[0]
    source = draft.outputs[reply]
    node = NodeId(source.owner) if isinstance(source, Ref) and source.owner in draft.nodes else None
    if node is not None and isinstance(source, Ref):
        streams = draft.nodes[node].spec.streams == source.port
        node = node if streams and source not in draft.types.absent else None
    return PlannedChat(said, reply, node)
