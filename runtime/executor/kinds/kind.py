"""The two ways in which a node can run, and what it is given.

A kind's file has one function `prepare(spec, resources)`, called once for each node when a plan is loaded.
What it gives back is called for each run: an `Evaluate` on the spot, a `Perform` awaited. A kind with bodies
runs them through its call, by their keys, as often as it likes:

    passed = await call.run("body", {Ref("item", "value"): item}, f"[{index}]")
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from cluster.interface import Pool
from cluster.messages import Usage
from cluster.stages import OpenChain
from graphs.bindings import Ref
from graphs.documents import Document
from runtime.approvals.model import Answer, Asked, no
from runtime.cache.savings import Savings
from runtime.executor.batches import Batches
from runtime.http_client import HttpClient

T = TypeVar("T")

Values = dict[str, Any]
"""By port. Values are shared between nodes and never changed."""

Evaluate = Callable[[Values], Values]
"""Inputs to outputs, in microseconds, without waiting. Raises `ClusterError`."""


class Searchable(Protocol):
    """What a `retrieve` node needs of an index."""

    @property
    def version(self) -> str:
        """Another one where a search may find something else."""
        ...

    def search(self, vector: list[float], top_k: int) -> list[Document]: ...


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool of a server answered."""

    text: str
    data: Any = None
    """The same as JSON, where the server gives it so."""


class ToolServer(Protocol):
    """What a `tool` node needs of a server."""

    async def call(
        self, tool: str, arguments: Mapping[str, Any], deadline: float, key: str | None = None
    ) -> ToolResult:
        """`deadline` is in Unix seconds. A call with the same `key` is the same. Raises `ClusterError`."""
        ...


class Approvals(Protocol):
    """What an `approval` node needs: somebody to ask."""

    async def wait(
        self,
        tenant: str,
        run_id: str,
        asked: Asked,
        told: Callable[[], None],
        stays: Callable[[], bool] = no,
    ) -> Answer:
        """What a person says. Calls `told` once it can be decided.

        Cancelling it withdraws the question, but where it `stays`: then it is put again later, with the same
        `asked.asked`, and what was decided meanwhile counts.

        Raises `ClusterError`.
        """
        ...


class Resources(msgspec.Struct, frozen=True):
    """What plans may call, by name."""

    pools: Mapping[str, Pool]
    indexes: Mapping[str, Searchable] = {}
    http: HttpClient = msgspec.field(default_factory=HttpClient)
    servers: Mapping[str, ToolServer] = {}
    approvals: Approvals | None = None
    open_chain: OpenChain | None = None
    """What gives functions processes of their own; without it they run in the runner."""
    savings: Savings = msgspec.field(default_factory=Savings)
    """What nodes gave before, and calls that runs share."""
    batches: Batches = msgspec.field(default_factory=Batches)
    """Where calls of functions that take batches meet."""


class Passed(NamedTuple):
    """What one run of a body has come to."""

    outputs: Values
    """By name. What is absent is null."""
    until: bool
    """Whether the condition holds that ends a loop; false where there is none."""


class NodeCall(Protocol):
    """One run of one node, as the node sees it."""

    @property
    def request_id(self) -> str:
        """Unique over all model calls of all runs: another one after each `called`."""
        ...

    @property
    def graph(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    @property
    def node(self) -> str:
        """Its path: `answer`, or `search[3].each` inside another."""
        ...

    @property
    def deadline(self) -> float:
        """Unix seconds: the run's, or that of this try."""
        ...

    @property
    def tenant(self) -> str: ...

    @property
    def priority(self) -> int:
        """Of the run and of the step together; lower goes first."""
        ...

    @property
    def stream(self) -> bool:
        """Whether anybody wants deltas."""
        ...

    def called(self, model: str, prompt_tokens: int) -> None:
        """Reports a model call; until `owe` says better, its prompt is owed. One after the other."""

    def owe(self, usage: Usage) -> None:
        """Sets what is owed for the last model call. Those before it stay owed too."""

    def waiting(self, message: str) -> None:
        """Reports that it waits for a person."""

    @property
    def idempotency_key(self) -> str:
        """Of whatever it does to the world outside: the same each time this node of this run is tried, by
        whichever process."""
        ...

    async def once(self, key: str, /, work: Callable[[], Awaitable[T]]) -> T:
        """Does a part of its work that must not be done again when another process goes on with the run.

        `key` is unique within the node. `work` gives what JSON can hold, and not null.
        """
        ...

    def keep(self, key: str, value: Any, /, supersedes: Sequence[str] = ()) -> None:
        """Has a value kept for whoever goes on with the run, in place of what was kept under the same key.

        A key that begins with a number is of that pass or step. `supersedes` are labels of bodies that nobody
        needs to look into any more, and `+` with a key. Costs nothing where the run is not durable.
        """

    def kept(self, key: str, /) -> Any:
        """What an earlier attempt at the run has kept under a key; null where it has kept nothing."""

    @property
    def last_kept(self) -> int:
        """The largest number that earlier attempts have kept something under; 0 where there is none."""
        ...

    @property
    def leaving(self) -> bool:
        """Whether this process gives the run up, and the run goes on all the same."""
        ...

    @property
    def asks_until(self) -> float:
        """Unix seconds until which a question to a person stands: in some runs later than `deadline`."""
        ...

    async def delta(self, text: str) -> None:
        """Reports more text. Waits while the reader of the run is behind."""

    def follows(self, port: str) -> bool:
        """Whether somebody reads this output, a list, while it is made."""
        ...

    async def put(self, port: str, item: Any) -> None:
        """Adds an item to an output that is followed. Waits while those that read it are behind.

        The output that the node gives in the end begins with all that was put.
        """

    @property
    def bodies(self) -> Mapping[str, Sequence[str]]:
        """By key of a body, in their order: the names of its outputs."""
        ...

    def holds(self, body: str) -> bool:
        """Whether the condition of a body holds; true where it has none. Raises `NodeError`."""
        ...

    @property
    def ahead(self) -> Sequence[str]:
        """Keys of bodies that may be run before it is known whether they are wanted."""
        ...

    def take_begun(self) -> dict[str, asyncio.Task[Passed]]:
        """Bodies that were begun before the node was, by key. Who takes them sees to it that they end."""
        ...

    def dropped(self, label: str) -> Usage:
        """Reports that the body of a label was run ahead in vain, and has ended. Gives what it has cost."""
        ...

    async def run(self, body: str, given: Mapping[Ref, Any], label: str) -> Passed:
        """Runs a body once; many may run at the same time. `given` are the values of its locals.

        `label` follows the path of this node in those of the nodes inside: `[3]` makes `search[3].each`. It
        must be another for each run of a body. A node that fails in there raises `NodeBroke`: let it pass,
        but where this kind can go on without. Waits while the reader of the run is behind.
        """
        ...


Perform = Callable[[NodeCall, Values], Awaitable[Values]]
"""Inputs to outputs, with calls to other processes. Cancelling it ends them. Raises `ClusterError`."""


def nothing(call: NodeCall) -> Values:
    """The outputs of all bodies, null: for a node that runs at most one of them."""
    return dict.fromkeys(name for names in call.bodies.values() for name in names)


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does all of it at the same time. The first that fails cancels the others; its exception is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for each in work:
                tasks.create_task(each)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
