"""What all nodes of a run share, however deep they are inside each other."""

from __future__ import annotations

import msgspec

from cluster.errors import ClusterError
from cluster.messages import Usage
from runtime.executor.queue import EventQueue


class NodeBroke(Exception):
    """A node failed, and with it the run."""

    def __init__(self, node: str, error: ClusterError) -> None:
        super().__init__(node)
        self.node = node
        """Its path."""
        self.error = error


class RunScope(msgspec.Struct, frozen=True):
    """What was asked, as far as nodes may know of it."""

    run_id: str
    deadline: float
    """Unix seconds."""
    tenant: str
    priority: int
    stream: bool
    graph: str = ""


class Ledger:
    """What one node owes for its model calls."""

    __slots__ = ("_earlier", "_last", "opened")

    def __init__(self) -> None:
        self.opened = False
        """Whether it has made any."""
        self._earlier = self._last = Usage()

    @property
    def usage(self) -> Usage:
        return self._earlier + self._last

    def called(self, prompt_tokens: int) -> None:
        """One more call has begun."""
        self.opened = True
        self._earlier += self._last
        self._last = Usage(prompt_tokens)

    def owe(self, usage: Usage) -> None:
        """What the last call has come to."""
        self._last = usage


class Run:
    """The state of a run that is not of any one node."""

    def __init__(self, scope: RunScope, queue: EventQueue) -> None:
        self.scope = scope
        self.queue = queue
        self.running: dict[str, str] = {}
        """By path of a node that has started and not ended, the first started first: that of the node it is
        in, empty where it is in none."""
        self._settled = Usage()
        self._open: dict[Ledger, None] = {}

    @property
    def usage(self) -> Usage:
        """What all nodes owe so far."""
        return sum((ledger.usage for ledger in self._open), self._settled)

    def opened(self, ledger: Ledger) -> None:
        self._open[ledger] = None

    def settled(self, ledger: Ledger) -> None:
        """The node will owe no more."""
        self._settled += ledger.usage
        del self._open[ledger]

    def at_work(self) -> list[str]:
        """The paths of the nodes that run, without those that only wait for nodes inside them."""
        holders = set(self.running.values())
        return [path for path in self.running if path not in holders]

    def forget_inside(self, path: str) -> None:
        """Nothing that was begun inside the node runs any more."""
        inside = (f"{path}.", f"{path}[")
        self.running = {each: holder for each, holder in self.running.items() if not each.startswith(inside)}
