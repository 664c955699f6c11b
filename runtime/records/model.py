"""The record of a run: one schema from the store to the API.

    {"run_id": "5f…", "graph": "support-rag", "status": "succeeded", "started": 1785.0, "seconds": 1.3,
     "inputs": {"values": {"question": "…"}, "left_out": {}}, "outputs": …, "usage": …,
     "nodes": [{"node": "search[3].each", "kind": "retrieve", "status": "succeeded", "started": 0.1, …}]}

It evolves by adding fields with defaults: an older reader ignores them, a newer one fills them in.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from cluster.messages import Usage
from runtime.events import Source

RunStatus = Literal["running", "suspended", "succeeded", "failed", "cancelled"]
"""`suspended`: all that is left of it waits for people, and a decision has it go on."""
NodeStatus = Literal["running", "waiting", "succeeded", "failed", "skipped", "cancelled"]
"""`waiting`: for a person."""

MAX_NODES = 1_000
"""Nodes that a record tells of; the rest are counted."""
MAX_VALUE_BYTES = 8 * 1024
"""Packed size up to which an input or output is kept."""
MAX_VALUES_BYTES = 64 * 1024
"""Packed size up to which all inputs, and all outputs, are kept."""
LOST_AFTER_S = 60.0
"""Past its deadline. From then on a run that still counts as running is taken to be lost."""
LOST = "RunLost"

_pack = msgspec.msgpack.Encoder().encode


class RunFault(msgspec.Struct, frozen=True):
    """Why a run has no outputs."""

    kind: str
    """Name of the error: `NodeError`, `DeadlineExceeded`, `RunCancelled` …"""
    message: str
    node: str | None = None
    """Where it broke."""


class NodeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run of one node. A node inside a `map` or `loop` has one for each item or pass."""

    node: str
    """Its path, as `search[3].each`."""
    kind: str
    status: NodeStatus
    started: float = 0.0
    """Seconds since the run began."""
    seconds: float = 0.0
    """Wall time."""
    usage: Usage | None = None
    """Tokens of its model calls; absent where it made none."""
    attempts: int = 1
    reason: str = ""
    """For people: why it was skipped."""
    fell_back_to: str = ""
    """`model NAME`, `value` or `cached answer`, where something else took its place."""
    source: Source = "node"
    """`cache` where an earlier answer was given again, `shared` where another run made it."""
    dropped: bool = False
    """Whether it was begun ahead in a body that was then not chosen."""


class Kept(msgspec.Struct, frozen=True):
    """Inputs or outputs, by name, as far as they are small."""

    values: dict[str, Any] = {}
    left_out: dict[str, int] = {}
    """Bytes of what is too large to keep."""


class RunSummary(msgspec.Struct, frozen=True):
    """A run without its nodes and values, as lists show it."""

    run_id: str
    tenant: str
    graph: str
    version: str
    plan_hash: str
    status: RunStatus
    started: float
    """Unix seconds."""
    deadline: float
    """Unix seconds; it cannot run on after that."""
    seconds: float = 0.0
    """Wall time; while it runs, until this was written."""
    usage: Usage = Usage()
    """Summed over all nodes."""
    error: RunFault | None = None
    attempt: int = 1
    """How many processes have driven it, one after the other."""


class RunRecord(RunSummary, frozen=True):
    """A run as a whole."""

    inputs: Kept = Kept()
    outputs: Kept = Kept()
    nodes: list[NodeRecord] = []
    """In the order in which they started."""
    nodes_left_out: int = 0
    """Further nodes that a record has no room for."""


R = TypeVar("R", bound=RunSummary)


def keep(values: dict[str, Any]) -> Kept:
    """The values within the bounds, and the sizes of the others."""
    kept: dict[str, Any] = {}
    left_out: dict[str, int] = {}
    room = MAX_VALUES_BYTES
    for name, value in values.items():
        size = len(_pack(value))
        if size <= min(room, MAX_VALUE_BYTES):
            kept[name] = value
            room -= size
        else:
            left_out[name] = size
    return Kept(kept, left_out)


def as_of(run: R, now: float) -> R:
    """The run as it is to be shown at `now` (Unix seconds): one that cannot go on any more has failed.

    Its runner died, or the store was out when it ended.
    """
    if run.status != "running" or now < run.deadline + LOST_AFTER_S:
        return run
    return msgspec.structs.replace(
        run, status="failed", error=RunFault(LOST, "nothing was heard of the run after it began")
    )
