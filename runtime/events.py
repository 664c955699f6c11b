"""What a run says of itself while it goes: the events from runner to gateway.

    RunStarted ─► NodeStarted ─► NodeCalled ─► NodeDelta … ─► NodeFinished ─► … ─► RunFinished
                 │               NodeWaiting ───────────────┘
                 └► NodeSkipped      └► NodeRetried, NodeFellBack ─► …
                                     └► NodeFailed ──────────────────────────────► RunFailed

A node is named by its path: `answer`, or `search[3].each` for one inside another, and `answer.0.step` inside
a case. What is inside a node begins after its `NodeStarted` and ends before its `NodeFinished`.

Exactly one `RunFinished` or `RunFailed` ends every run, and nothing follows it. A run in the background may
stop before at a `RunSuspended`, and a durable one go on elsewhere with a `RunResumed`. Events of different
nodes interleave as the nodes do. They travel as msgpack (`encode_events`, `decode_events`), several to a
batch when they come fast, and every one is JSON-able as it stands (`to_json`), tagged by `type`.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from cluster.messages import Failure, Usage

Source = Literal["node", "cache", "shared"]
"""Where the outputs of a node come from. See `NodeFinished.source`."""


_INDEX = re.compile(r"\[\d+\]")


class _Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    pass


class NodeUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the calls of a node to one model have come to."""

    node: str
    """Its place in the graph, as `place_of` tells."""
    model: str
    usage: Usage


def place_of(path: str) -> str:
    """Where a node stands in its graph: its path without the numbers of items and passes, `search.each` of
    `search[3].each`."""
    return _INDEX.sub("", path) if "[" in path else path


class RunStarted(_Event, frozen=True, tag="run_started"):
    """The inputs were accepted."""

    run_id: str
    graph: str
    version: str
    plan_hash: str


class RunResumed(_Event, frozen=True, tag="run_resumed"):
    """Another process goes on with the run. Nodes that were done are not run again; of those that were not
    nothing holds any more that was told before."""

    run_id: str
    attempt: int
    """2 for the first that is not the first."""
    completed: int
    """Nodes that are not run again."""


class RunSuspended(_Event, frozen=True, tag="run_suspended"):
    """All that is left of the run waits for people. The last event, until a decision resumes the run."""

    waiting: list[str]
    """Paths of the nodes that wait."""
    usage: Usage
    """So far."""
    seconds: float
    besides: list[NodeUsage] = []
    """The part of it that no `NodeFinished` tells: of nodes that have ended without outputs."""


class NodeStarted(_Event, frozen=True, tag="node_started"):
    """All that the node waits for is there."""

    node: str
    kind: str


class NodeCalled(_Event, frozen=True, tag="node_called"):
    """The node has sent a call to a model: from here on its prompt is owed, whatever comes of it."""

    node: str
    model: str
    prompt_tokens: int


class NodeDelta(_Event, frozen=True, tag="node_delta"):
    """More text of a node that streams. Only in runs that asked for a stream."""

    node: str
    text: str


class NodeWaiting(_Event, frozen=True, tag="node_waiting"):
    """The node waits for a person to decide."""

    node: str
    message: str
    """What the person is asked. The value that it is about is in the run's approvals."""


class NodeFinished(_Event, frozen=True, tag="node_finished"):
    """The node's outputs are known."""

    node: str
    seconds: float
    """Wall time since its `NodeStarted`."""
    usage: Usage | None = None
    """Tokens of its own model calls, those of failed tries too; absent where it made none."""
    outputs: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """By port. Absent when larger than `MAX_OUTPUT_BYTES`, and in runs that did not ask for a stream."""
    source: Source = "node"
    """`cache`: kept from an earlier run. `shared`: made by another run at the same time. Neither owes."""
    models: dict[str, Usage] = {}
    """The usage by model, where it called more than one."""


class NodeSkipped(_Event, frozen=True, tag="node_skipped"):
    """The node is not run: its outputs are absent."""

    node: str
    kind: str
    reason: str
    """For people: the condition that did not hold, or the input that is absent."""


class NodeFailed(_Event, frozen=True, tag="node_failed"):
    """The node broke. Its siblings are being cancelled and `RunFailed` follows, unless a node that it is in
    is tried again, has a fallback, or is an agent that goes on without its tool."""

    node: str
    failure: Failure


class NodeRetried(_Event, frozen=True, tag="node_retried"):
    """The node is tried again. What was begun inside it is given up."""

    node: str
    attempt: int
    """Of the try that begins: 2 for the first that is not the first."""
    reason: str
    """Why the one before failed: `unavailable`, `overloaded`, `timeout` or `error`."""


class NodeFellBack(_Event, frozen=True, tag="node_fell_back"):
    """The node has failed for good and something else takes its place. What was begun inside is given up."""

    node: str
    to: str
    """`model NAME`, `value` where a constant does, or `cached answer`."""
    reason: str
    """As of `NodeRetried`."""


class NodesDropped(_Event, frozen=True, tag="nodes_dropped"):
    """What was begun ahead inside a node was not chosen, and has ended."""

    node: str
    """What the paths of all these nodes begin with: `pick.large`, of `pick.large.step`. Or the one node that
    was begun before its condition was known."""
    usage: Usage
    """Tokens that it has cost. They are part of what the run owes."""


class PrefixRead(_Event, frozen=True, tag="prefix_read"):
    """An engine has read what the prompt of a node begins with, or was stopped at it, ahead of its call."""

    node: str
    model: str
    usage: Usage
    """Tokens that it has cost: of no node, and part of what the run owes."""


class RunFinished(_Event, frozen=True, tag="run_finished"):
    """All outputs are known. The last event."""

    outputs: dict[str, Any]
    usage: Usage
    """Summed over all nodes, failed tries among them, and what was read ahead."""
    seconds: float
    besides: list[NodeUsage] = []
    """As of `RunSuspended`."""


class RunFailed(_Event, frozen=True, tag="run_failed"):
    """There will be no outputs. The last event."""

    failure: Failure
    usage: Usage
    """What is owed all the same: finished nodes, and what the others had drawn so far."""
    seconds: float
    node: str | None = None
    """Path of the node that broke; absent when the run itself was refused."""
    besides: list[NodeUsage] = []
    """As of `RunSuspended`."""


RunEvent = (
    RunStarted
    | RunResumed
    | RunSuspended
    | NodeStarted
    | NodeCalled
    | NodeDelta
    | NodeWaiting
    | NodeFinished
    | NodeSkipped
    | NodeFailed
    | NodeRetried
    | NodeFellBack
    | NodesDropped
    | PrefixRead
    | RunFinished
    | RunFailed
)

MAX_OUTPUT_BYTES = 16 * 1024
"""Encoded size from which `NodeFinished` leaves the outputs of a node out."""

encode_events = msgspec.msgpack.Encoder().encode
encode_event = encode_events
decode_event = msgspec.msgpack.Decoder(RunEvent).decode
decode_events = msgspec.msgpack.Decoder(list[RunEvent]).decode
to_json = msgspec.json.Encoder().encode


class Tally:
    """The tokens a run owes, from the events seen so far: for whoever must settle a run it had to give up.

    Exact for nodes that have finished and at the end of the run. A node in mid-call, or cut off in it, is
    charged its prompt and one token per `CHARS_PER_TOKEN` characters it streamed.
    """

    CHARS_PER_TOKEN = 3

    def __init__(self) -> None:
        self._settled = Usage()
        self._prompts: dict[str, int] = {}
        self._streamed: dict[str, int] = {}
        self._final: Usage | None = None

    def add(self, event: RunEvent) -> None:
        match event:
            case NodeCalled(node=node, prompt_tokens=tokens):
                self._prompts[node] = self._prompts.get(node, 0) + tokens
            case NodeDelta(node=node, text=text):
                self._streamed[node] = self._streamed.get(node, 0) + len(text)
            case NodeFinished(node=node, usage=usage):
                self._prompts.pop(node, None)
                self._streamed.pop(node, None)
                if usage is not None:
                    self._settled += usage
            case NodeRetried(node=node) | NodeFellBack(node=node) | NodesDropped(node=node):
                self._give_up_inside(node)
            case PrefixRead(usage=usage):
                self._settled += usage
            case RunFinished(usage=total) | RunFailed(usage=total) | RunSuspended(usage=total):
                self._final = total
            case RunResumed():
                self._final = None
                self._prompts.clear()  # what a process that died was at is not charged
                self._streamed.clear()
            case _:
                pass

    @property
    def usage(self) -> Usage:
        if self._final is not None:
            return self._final
        return sum((self._estimate(node) for node in {**self._prompts, **self._streamed}), self._settled)

    def _estimate(self, node: str) -> Usage:
        """Of a node that has not finished."""
        streamed = -(-self._streamed.get(node, 0) // self.CHARS_PER_TOKEN)
        return Usage(prompt_tokens=self._prompts.get(node, 0), completion_tokens=streamed)

    def _give_up_inside(self, node: str) -> None:
        """What runs inside the node has ended, and may begin again under the same name."""
        inside = (f"{node}.", f"{node}[")
        for path in [each for each in {**self._prompts, **self._streamed} if each.startswith(inside)]:
            self._settled += self._estimate(path)
            self._prompts.pop(path, None)
            self._streamed.pop(path, None)
