"""What the gateway is made of, handed to it whole: it looks nothing up and starts nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from cluster.interface import Pool
from cluster.tokens import Tokenizer
from runtime.approvals.book import ApprovalBook
from runtime.context.store import ContextStore
from runtime.durability.journal import Journals
from runtime.durability.model import Checkpoint
from runtime.events import RunEvent
from runtime.records.store import RunStore
from runtime.request import RunRequest
from runtime.runner import GraphInfo
from serve_apps.accounting.book import UsageBook
from serve_apps.audit.log import AuditLog
from serve_apps.gateway.admission import Admission
from serve_apps.gateway.authentication import Authenticator
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import FREE, Price
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.idempotency import AnswerStore
from serve_apps.gateway.inline import InlinePipelines
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.local_share import LocalShare
from serve_apps.gateway.oidc.persons import Persons
from serve_apps.gateway.quotas import QuotaLedger
from serve_apps.gateway.readiness import RUNNER, Ask, Readiness, model_part
from serve_apps.gateway.responses import ResponseStore
from serve_apps.gateway.traffic import Split
from serve_apps.settings import GatewaySettings


class Runner(Protocol):
    """Runs graphs, in this process or behind a handle."""

    def run(self, request: RunRequest) -> AsyncGenerator[list[RunEvent], None]:
        """Batches of events, as `runtime.events` tells. Closing the iterator cancels a run that is not in
        the background.

        A durable run that another runner goes on with ends here without a last event: its journal tells the
        rest. Raises `ReplicaLost`, `Overloaded`.
        """
        ...

    async def start(self, request: RunRequest, done: Sequence[Checkpoint] = ()) -> None:
        """Begins a run in the background; returns when its inputs are accepted and it is in the journal.

        `done` is what it need not do itself: a fork has it from another run. Raises any `ClusterError`:
        `InvalidInputs`, `UnknownGraph`, `RunExists`, `Overloaded`, `ModelUnavailable` while the store is out,
        `ReplicaLost` when nobody knows whether it has begun.
        """
        ...

    async def resume(self, tenant: str, run_id: str, deadline: float | None = None) -> None:
        """Has a run go on, in the background: one that is suspended, that has failed, or that nobody drives.

        Without a `deadline` (Unix seconds) a suspended run has what was left of its time, any other the one
        that it had. Raises as `start`, and `UnknownRun`, `RunHeld`, `RunEnded`.
        """
        ...

    async def ready(self) -> bool:
        """Whether a run can start now. Never raises, never waits long."""
        ...


@dataclass(frozen=True)
class GatewayDeps:
    """The parts behind the gateway."""

    pools: Mapping[str, Pool]
    """By model name."""
    keys: KeyStore
    audit: AuditLog
    directory: Directory
    quotas: QuotaLedger
    """Raises `StoreUnavailable` while the store is out; `local_share` may admit then."""
    contexts: ContextStore
    runs: RunStore
    approvals: ApprovalBook
    answers: AnswerStore
    responses: ResponseStore
    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)
    """Of the models that have theirs at hand, by model name."""
    graphs: Mapping[str, GraphInfo] = field(default_factory=dict)
    """By graph name; not empty only when there is a runner."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Graphs by the tasks that they are for."""
    traffic: Mapping[str, Split] = field(default_factory=dict)
    """Of the models and `graph/NAME` whose calls several answer, by name."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    """By model name; one that has none is free."""
    usage: UsageBook | None = None
    """There where usage is kept."""
    runner: Runner | None = None
    journals: Journals | None = None
    """Of the runs in the background and the durable ones; there where a runner is."""
    inline: InlinePipelines | None = None
    """Of pipelines that come with calls; there where a runner is."""
    local_share: LocalShare | None = None
    """Admits calls while the store is out. None: nobody does."""
    parts: Mapping[str, Ask] = field(default_factory=dict)
    """Whatever else must answer before the gateway calls itself ready, by name."""
    persons: Persons | None = None
    """Those whom identity providers vouch for, where there are any."""
    says_ids: bool = True
    """Whether answers say the id of their request, because nobody around the gateway does."""
    settings: GatewaySettings = GatewaySettings()
    clock: Callable[[], float] = time.time
    """Unix seconds."""


class Attending:
    """What the gateway does beside its requests, until it stops."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancels all of it, and waits until it has ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class Gateway:
    """The parts, and the gateway's own state beside them: what is ready, and what is still to settle."""

    def __init__(self, deps: GatewayDeps) -> None:
        self.pools = deps.pools
        self.tokenizers = deps.tokenizers
        self.tasks = deps.tasks
        self.graphs = deps.graphs
        self.traffic = deps.traffic
        self.prices = deps.prices
        self.usage = deps.usage
        self.runner = deps.runner
        self.inline = deps.inline
        self.journals = deps.journals
        self.keys = deps.keys
        self.audit = deps.audit
        self.directory = deps.directory
        self.callers = Authenticator(deps.keys, deps.directory, deps.persons)
        self.contexts = deps.contexts
        self.runs = deps.runs
        self.approvals = deps.approvals
        self.answers = deps.answers
        self.responses = deps.responses
        self.says_ids = deps.says_ids
        self.settings = deps.settings
        self.clock = deps.clock
        self.quotas = deps.quotas
        self.admission = Admission(deps.quotas, deps.local_share)
        self.attending = Attending()
        parts: dict[str, Ask] = {model_part(name): pool.ready for name, pool in deps.pools.items()}
        if deps.runner is not None:
            parts[RUNNER] = deps.runner.ready
        parts.update(deps.parts)
        self.readiness = Readiness(parts)

    def price(self, model: str) -> Price:
        """What a model costs."""
        return self.prices.get(model, FREE)


class Request(NamedTuple):
    """One request, authenticated."""

    gateway: Gateway
    exchange: Exchange
    caller: Caller
