"""The last draft written down as a plan."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import msgspec
import networkx as nx

from graphs.bindings import Ref
from graphs.pipeline import NodeId
from graphs.ports import STRING, PortType
from runtime.compiler.draft import Draft, owners
from runtime.compiler.fingerprint import Defined, digest_of, fingerprint, number, structure
from runtime.plan import ExecutionPlan, ExecutionStep, PlannedChat, PlannedNode, StepId


def lower(draft: Draft) -> ExecutionPlan:
    """The plan of a draft that has been through every stage."""
    pipeline = draft.pipeline
    steps = _in_order(_steps(draft))
    uses = [use for node in draft.nodes.values() for use in node.spec.uses()]
    types = draft.types.outputs
    return ExecutionPlan(
        graph=pipeline.metadata.name,
        version=pipeline.metadata.version,
        description=pipeline.metadata.description,
        hash=_hash(draft),
        inputs=pipeline.inputs,
        reads=tuple(sorted(pipeline.context.reads)),
        steps=tuple(steps),
        outputs=draft.outputs,
        output_types=types,
        defaults=pipeline.defaults,
        models=tuple(sorted({use.name for use in uses if use.resource == "model"})),
        indexes=tuple(sorted({use.name for use in uses if use.resource == "index"})),
        token_bound=sum(step.token_bound for step in steps),
        policies=pipeline.policies,
        chat=_chat(draft, types),
    )


def _hash(draft: Draft) -> str:
    """Of all that decides what a run does; neither of names of nodes nor of descriptions."""
    nodes = _defined(draft)
    numbers = number(draft.outputs, nodes)
    pipeline = draft.pipeline
    ports = {name: msgspec.structs.replace(port, description="") for name, port in pipeline.inputs.items()}
    rest = msgspec.to_builtins([ports, sorted(pipeline.context.reads), pipeline.policies, pipeline.defaults])
    chat = _chat(draft, draft.types.outputs)
    talk = None if chat is None else [chat.input, chat.output]
    return fingerprint([structure(draft.outputs, nodes, numbers), rest, talk])


def _defined(draft: Draft) -> dict[str, Defined]:
    """The nodes, each `after` sorted by what its nodes compute and not by what they are called."""
    digests: dict[str, str] = {}
    defined: dict[str, Defined] = {}
    for node_id in nx.topological_sort(draft.graph):
        node = draft.nodes[node_id]
        after = tuple(sorted(node.after, key=lambda other: digests[other]))
        digest = digest_of(node.spec, node.inputs, digests, node.when)
        digests[node_id] = fingerprint([digest, [digests[other] for other in after]])
        defined[node_id] = Defined(node.spec, node.inputs, after, node.when)
    return defined


def _steps(draft: Draft) -> list[ExecutionStep]:
    """One for each group and for each node without one."""
    members: dict[NodeId, list[NodeId]] = {}
    for node_id, node in draft.nodes.items():
        members.setdefault(node.group or node_id, []).append(node_id)
    step_of = {node_id: StepId(group) for group, node_ids in members.items() for node_id in node_ids}
    digests: dict[str, str] = {}
    planned: dict[NodeId, PlannedNode] = {}
    for node_id, node in draft.nodes.items():
        digests[node_id] = digest_of(node.spec, node.inputs, digests, node.when)
        planned[node_id] = PlannedNode(node_id, node.spec, node.inputs, digests[node_id], node.when)
    return [_step(draft, group, node_ids, planned, step_of) for group, node_ids in members.items()]


def _step(
    draft: Draft,
    group: NodeId,
    node_ids: Sequence[NodeId],
    planned: Mapping[NodeId, PlannedNode],
    step_of: Mapping[NodeId, StepId],
) -> ExecutionStep:
    nodes = [draft.nodes[node_id] for node_id in node_ids]
    needed = {step_of[owner] for node in nodes for owner in owners(node.bindings()) if owner in step_of} | {
        step_of[other] for node in nodes for other in node.after
    }
    return ExecutionStep(
        id=StepId(group),
        backend=nodes[0].backend,
        nodes=tuple(planned[node_id] for node_id in node_ids),
        depends_on=tuple(sorted(needed - {StepId(group)})),
        pool=nodes[0].pool,
        priority=min(node.priority for node in nodes),
        seconds=sum(node.seconds for node in nodes),
        remaining_s=max(node.remaining_s for node in nodes),
        token_bound=sum(node.spec.tokens.total for node in nodes),
    )


def _in_order(steps: list[ExecutionStep]) -> list[ExecutionStep]:
    """Each after those it depends on; of those that are ready the one with most time to go first."""
    by_id = {step.id: step for step in steps}
    waiting = {step.id: len(step.depends_on) for step in steps}
    consumers: dict[StepId, list[StepId]] = {step.id: [] for step in steps}
    for step in steps:
        for needed in step.depends_on:
            consumers[needed].append(step.id)
    ready = [(-step.remaining_s, step.id) for step in steps if not step.depends_on]
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
        texts = [name for name, port_type in types.items() if port_type == STRING]
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
