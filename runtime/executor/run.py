"""What all nodes of a run share, however deep they are inside each other."""

from __future__ import annotations

import asyncio

import msgspec

from cluster.errors import ClusterError
from cluster.messages import Usage
from runtime.cache.warmth import Prefix
from runtime.errors import BudgetExceeded
from runtime.events import NodeUsage, place_of
from runtime.executor.progress import Progress
from runtime.executor.queue import EventQueue

NOTHING_OWED = Usage()
MAX_BODIES_BESIDE = 256
"""Bodies of one run that run beside another of the same node: maps in maps in maps multiply."""


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
    attempt: int = 1
    """Of how many processes this is the one that goes on with the run."""
    questions_until: float | None = None
    """Unix seconds until which questions to people stand, where they may outlive this attempt."""
    token_budget: int | None = None
    """Tokens that the run may owe."""
    warms: bool = False
    """Whether it can pay for what is read ahead, and reads anything."""


class Ledger:
    """What one node owes for its model calls."""

    __slots__ = ("_before", "_earlier", "_last", "_model", "_models", "_noted", "opened")

    def __init__(self) -> None:
        self.opened = False
        """Whether it has made any."""
        self._before = self._earlier = self._last = self._noted = Usage()
        self._model = ""
        self._models: dict[str, Usage] = {}
        """What calls before the last have come to, by model."""

    @property
    def usage(self) -> Usage:
        return self._before + self.fresh

    @property
    def fresh(self) -> Usage:
        """Of this attempt alone."""
        return self._earlier + self._last

    @property
    def by_model(self) -> dict[str, Usage]:
        """What `fresh` is made of."""
        if not self._model:
            return {}
        return {**self._models, self._model: self._models.get(self._model, Usage()) + self._last}

    @property
    def noted(self) -> Usage:
        """Of this attempt, as far as it is in checkpoints of parts of the node's work."""
        return self._noted

    def restore(self, usage: Usage) -> None:
        """Adds what parts of the node's work cost that were done before this attempt."""
        self._before += usage
        self.opened = self.opened or usage != Usage()

    def note(self) -> Usage:
        """What was owed since this was last asked: of one more part of the node's work, which is done."""
        fresh, before = self.fresh, self._noted
        self._noted = fresh
        return fresh - before

    def called(self, model: str, prompt_tokens: int) -> None:
        """One more call has begun."""
        self.opened = True
        self._models = self.by_model
        self._model = model
        self._earlier += self._last
        self._last = Usage(prompt_tokens)

    def owe(self, usage: Usage) -> None:
        """What the last call has come to."""
        self._last = usage


class Run:
    """The state of a run that is not of any one node."""

    def __init__(
        self,
        scope: RunScope,
        queue: EventQueue,
        progress: Progress | None = None,
        owed: Usage = NOTHING_OWED,
    ) -> None:
        """`owed` is what earlier attempts owe for what they have done."""
        self.scope = scope
        self.queue = queue
        self.progress = progress or Progress()
        self.request_prefix = scope.run_id if scope.attempt == 1 else f"{scope.run_id}~{scope.attempt}"
        """Begins the id of every request to an engine: another for each attempt."""
        self.leaving = False
        """Whether this process gives up a run that goes on: what asks people is not to take it back."""
        self.room_beside = asyncio.Semaphore(MAX_BODIES_BESIDE)
        """Held by each body that runs beside another of the same node. One of each node needs no room, so
        that what is deepest inside always gets on, and with it all around it."""
        self.waiting: set[str] = set()
        """Paths of those that wait for a person."""
        self.running: dict[str, str] = {}
        """By path of a node that has started and not ended, the first started first: that of the node it is
        in, empty where it is in none."""
        self.reading: dict[Prefix, asyncio.Task[None]] = {}
        """The beginnings of prompts that are read ahead, or were."""
        self._settled = owed
        self._open: dict[Ledger, None] = {}
        self._unfinished: dict[tuple[str, str], Usage] = {}

    @property
    def usage(self) -> Usage:
        """What all nodes owe so far."""
        return sum((ledger.fresh for ledger in self._open), self._settled)

    @property
    def done_usage(self) -> Usage:
        """What is owed for all that is done, parts of the work of nodes that still run among it."""
        return sum((ledger.noted for ledger in self._open), self._settled)

    @property
    def waits_for_people(self) -> bool:
        """Whether nothing is left to do until somebody decides."""
        return bool(self.waiting) and self.waiting.issuperset(self.at_work())

    @property
    def tokens_left(self) -> int | None:
        """That the run may still owe; None where it has no budget."""
        budget = self.scope.token_budget
        return None if budget is None else budget - self.usage.total_tokens

    def afford(self, tokens: int = 0) -> None:
        """Raises `BudgetExceeded` where the run owes more than its budget, with so many tokens more."""
        budget = self.scope.token_budget
        if budget is None:
            return
        owed = self.usage.total_tokens
        if owed + tokens > budget:
            more = f" and the next call begins with {tokens}" if tokens else ""
            raise BudgetExceeded(f"the run owes {owed} tokens{more}: its budget is {budget}")

    def opened(self, ledger: Ledger) -> None:
        self._open[ledger] = None

    def settled(self, ledger: Ledger) -> None:
        """The node will owe no more."""
        self._settled += ledger.fresh
        del self._open[ledger]

    def unfinished(self, node: str, ledger: Ledger) -> None:
        """The node has ended without outputs: no event of its own tells what it owes."""
        for model, usage in ledger.by_model.items():
            at = (place_of(node), model)
            self._unfinished[at] = self._unfinished.get(at, Usage()) + usage

    @property
    def besides(self) -> list[NodeUsage]:
        """What is owed by nodes that have ended without outputs."""
        return [NodeUsage(*at, usage) for at, usage in self._unfinished.items() if usage != Usage()]

    def at_work(self) -> list[str]:
        """The paths of the nodes that run, without those that only wait for nodes inside them."""
        holders = set(self.running.values())
        return [path for path in self.running if path not in holders]

    def forget_inside(self, path: str) -> None:
        """Nothing that was begun inside the node runs any more."""
        inside = (f"{path}.", f"{path}[")
        self.running = {each: holder for each, holder in self.running.items() if not each.startswith(inside)}
