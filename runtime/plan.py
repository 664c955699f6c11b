"""What the compiler makes of a pipeline and the executor runs: frozen, serialisable, hashed by content.

    ExecutionPlan ─► ExecutionStep … ─► PlannedNode …

A step is what is scheduled: one node, or several cheap ones fused. Two pipelines that do the same have the
same `hash`, whatever their nodes are called and in whatever order they are written; caches and checkpoints
are keyed on it and on the digests of the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NewType

import msgspec

from graphs.bindings import Binding, Ref, references
from graphs.conditions import Condition, operands_of
from graphs.nodes.registry import AnySpec
from graphs.nodes.spec import Effects
from graphs.pipeline import Cache, Fallback, NodeId, Policies, Retry, port_names
from graphs.ports import Port, PortType

StepId = NewType("StepId", str)

Backend = Literal["inline", "pool", "task", "compiled"]
"""`inline`: computed in the runner, on the spot. `pool`: awaits calls to a model. `task`: awaits something
else, as a thread, a server or the nodes inside it. `compiled`: a stage of a Ray Compiled Graph, in a process
of its own."""


class PlannedBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The nodes inside a node, planned like a plan of their own. They may refer to all that is around it."""

    steps: tuple[ExecutionStep, ...]
    outputs: Mapping[str, Binding]
    when: Condition | None = None
    """Over what is around the node: whether a case applies."""
    until: Condition | None = None
    """Over what the body sees: whether a loop ends after this pass."""
    defaults: Mapping[str, Any] = {}
    """By name of an output: its value where what it refers to is absent, in place of null."""

    def names(self) -> Iterator[NodeId]:
        """Its nodes."""
        return (node.name for step in self.steps for node in step.nodes)

    def references(self) -> Iterator[Ref]:
        """Every value that is referred to in here, whether it is of the body or from around it."""
        taken = (binding for step in self.steps for node in step.nodes for binding in node.bindings())
        for binding in (*taken, *self.outputs.values(), *operands_of(self.until)):
            yield from references(binding)


class Warm(msgspec.Struct, frozen=True, omit_defaults=True):
    """That an engine reads what the prompt of a call begins with before the call is made."""

    head: str
    """What the user's message begins with. The system message of the node comes before it."""
    after: NodeId | None = None
    """The node beside it at whose end that is; absent where it is when what they are in begins."""
    most_tokens: int = 0
    """Of the call that has it read: more is not sent."""


class PlannedNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node with every input bound."""

    name: NodeId
    """The author's, for events and messages; not part of any hash."""
    spec: AnySpec
    inputs: Mapping[str, Binding]
    digest: str
    """Of the spec and all that flows into it: equal digests compute the same thing."""
    when: Condition | None = None
    """Where it does not hold the node is skipped and its outputs are absent."""
    bodies: Mapping[str, PlannedBody] = {}
    retry: Retry | None = None
    timeout_s: float | None = None
    fallback: tuple[Fallback, ...] = ()
    effects: Effects = "pure"
    """The author's word, else the worst of the kind's and of its bodies'."""
    prefix: str | None = None
    """Of a model call: digest of the model and of what its prompt begins with in every run. Calls with the
    same one do well to go to the same replica."""
    cache: Cache | None = None
    """Its own, or the pipeline's where that is for such a node."""
    shared: bool = False
    """Whether equal calls of it that runs of a tenant make at the same time are made once."""
    ahead: tuple[str, ...] = ()
    """Bodies that may begin before it is known which one is wanted."""
    warm: Warm | None = None
    """Where its prefix is read ahead."""

    def bindings(self) -> Iterator[Binding]:
        """All that the node takes or looks at, of what is around it."""
        yield from self.inputs.values()
        yield from operands_of(self.when)
        for key, body in self.bodies.items():
            yield from operands_of(body.when)
            inner = {*body.names(), *self.spec.locals(key, {})}
            yield from (ref for ref in body.references() if ref.owner not in inner)

    def ports(self) -> tuple[str, ...]:
        """The names of its outputs."""
        return port_names(self.spec, {key: body.outputs for key, body in self.bodies.items()})


class ExecutionStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is started at once, when all it depends on is done."""

    id: StepId
    """The name of its last node."""
    backend: Backend
    nodes: tuple[PlannedNode, ...]
    """In the order in which they run. More than one only where all are cheap."""
    depends_on: tuple[StepId, ...] = ()
    follows: tuple[StepId, ...] = ()
    """Steps that it waits for only to begin: it takes nothing of them but what it reads while it is made."""
    early: tuple[StepId, ...] | None = None
    """Steps after which its node may begin before its condition is known; absent where it may not."""
    cases_early: Mapping[str, tuple[StepId, ...]] = {}
    """By case of its branch: steps after which the case may begin before the conditions are known."""
    pool: str | None = None
    """The model that it calls."""
    priority: int = 0
    """Added to the run's. 0 on the critical path; more for a step that can wait."""
    seconds: float = 0.0
    """Estimated, of this step alone."""
    remaining_s: float = 0.0
    """Estimated, from its start to the end of the run along the longest path."""
    token_bound: int = 0


class Demand(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one run is expected to ask of a pool."""

    visits: float = 0.0
    """Calls."""
    prompt_tokens: float = 0.0
    """Of all calls together."""
    output_tokens: float = 0.0


class PlannedChat(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the plan is talked to as if it were a chat model."""

    input: str
    output: str
    node: NodeId | None = None
    """Whose text is the reply, where it streams."""


class ExecutionPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    graph: str
    version: str
    description: str
    hash: str
    inputs: Mapping[str, Port]
    reads: tuple[str, ...]
    """Fields of the context that it needs."""
    steps: tuple[ExecutionStep, ...]
    """In an order in which they could be run one after the other, the most urgent first."""
    outputs: Mapping[str, Binding]
    output_types: Mapping[str, PortType]
    models: tuple[str, ...]
    indexes: tuple[str, ...]
    token_bound: int
    """Most tokens, prompts and outputs together, that one run can use."""
    demand: Mapping[str, Demand] = {}
    """By model, what a run is expected to ask of it: how load on the graph becomes load on the pools."""
    colocate: tuple[tuple[str, str], ...] = ()
    """Pairs of models of which the first makes what the second takes, those with most to hand over first."""
    policies: Policies = Policies()
    defaults: Mapping[str, Any] = {}
    """By name of an output that may be absent: its value then."""
    chat: PlannedChat | None = None


encode_plan = msgspec.msgpack.Encoder().encode
decode_plan = msgspec.msgpack.Decoder(ExecutionPlan).decode
