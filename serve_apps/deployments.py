"""The deployments beside the models: the store's keeper, the graph runner and the gateway.

Each builds its parts in its own process from the settings it is given; handles to the models come bound.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog
from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.adapters import host_of
from cluster.compiled_graph import open_chain
from cluster.config import RemoteSpec, ReplicatedSpec
from cluster.engines.gauges import QueueMetrics
from cluster.engines.serving import coalesce
from cluster.errors import ClusterError
from cluster.garbage import collect_less_often
from cluster.interface import Pool
from cluster.node_pools import pool_selector
from cluster.pools.deploy import model_info, token_counter
from cluster.pools.handle import HandlePool
from cluster.providers.fair import FairPool
from cluster.providers.pools import remote_pool
from cluster.services import pools_of
from cluster.tokens import TokenCounter, Tokenizer
from runtime.approvals.book import ApprovalBook
from runtime.cache.claims import Claims
from runtime.cache.counts import Counts
from runtime.cache.results import Results
from runtime.cache.savings import Savings
from runtime.cache.stored import StoredResults
from runtime.context.store import ContextStore
from runtime.durability.attending import attend
from runtime.durability.stored import StoredJournals
from runtime.events import RunEvent, encode_events
from runtime.executor.batches import Batches
from runtime.executor.kinds.kind import Resources
from runtime.http_client import HttpClient
from runtime.indexes import Index
from runtime.mcp.config import secrets_of
from runtime.plan import ExecutionPlan
from runtime.records.cancelling import end_cancelled
from runtime.records.log import RunLog
from runtime.records.store import RunStore
from runtime.records.timings import TimingStore
from runtime.remote import HandleRunner, decode_checkpoints, encode_failure
from runtime.request import decode_request
from runtime.runner import Runner, info_of
from runtime.sealing import Sealing
from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from runtime.store.errors import StoreUnavailable
from serve_apps.accounting.accountant import Accountant
from serve_apps.accounting.prices import prices_of
from serve_apps.accounting.remote import HandleBook, reply_of
from serve_apps.accounting.schema import open_tables
from serve_apps.audit.log import AuditLog
from serve_apps.data_keys import load_sealing
from serve_apps.gateway import app as gateway
from serve_apps.gateway.deps import GatewayDeps
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.idempotency import AnswerStore
from serve_apps.gateway.inline import InlinePipelines
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.local_share import LocalShare
from serve_apps.gateway.oidc.persons import Persons
from serve_apps.gateway.quotas import QuotaLedger
from serve_apps.gateway.responses import ResponseStore
from serve_apps.gateway.traffic import Split
from serve_apps.metrics import CallMetrics, SavingsMetrics
from serve_apps.pipelines import load_deployed, load_plans
from serve_apps.settings import Settings

if TYPE_CHECKING:
    from runtime.mcp.client import McpServer

STORE_WATCH_S = 0.25
"""How soon the death of the embedded store is noticed."""

log = structlog.get_logger(__name__)


class StoreKeeper:
    """Keeps the embedded Valkey alive: starts or adopts it, and starts it again when it dies.

    It does not stop it: another keeper may take over. `clustergraph up` and `down` do.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        self._server = EmbeddedValkey(settings.store_dir)
        await asyncio.to_thread(self._server.start_or_adopt)
        self._watch = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(STORE_WATCH_S)
            if not _running(self._server.pid()):
                log.warning("store_restarting")
                await asyncio.to_thread(self._server.start_or_adopt)

    async def check_health(self) -> None:
        if self._watch.done():
            await self._watch


class RunnerReplica:
    """Executes graphs. Ready once its indexes are built, which waits for the embedding models."""

    async def __init__(  # type: ignore[misc]
        self, settings: Settings, handles: dict[str, DeploymentHandle]
    ) -> None:
        self._settings = settings
        self._pools = build_pools(settings, handles, token_counters(settings))
        self._servers = mcp_servers(settings)
        self._store = connect_store(settings)
        self._sealing = load_sealing(settings, os.environ)
        self._runs = RunStore(self._store, keep_s=settings.runs.keep, sealing=self._sealing)
        self._log = RunLog(self._runs)
        self._results = Results(StoredResults(self._store, self._sealing))
        self._batches = Batches(settings.weights)
        self._watch = QueueMetrics("function")
        self._journals = journals(settings, self._store, self._sealing)
        loop = asyncio.get_running_loop()
        self._building: asyncio.Task[Runner] = loop.create_task(self._build())
        attending = (self._log.write(), self._end_cancelled(), self._attend())
        self._attending = [loop.create_task(each) for each in attending]
        collect_less_often()
        # Serve takes it for running from here on, and ends the replica that it replaces.
        await asyncio.shield(self._building)

    async def run(self, payload: bytes) -> AsyncGenerator[bytes, None]:
        """Events of one run; items are msgpack lists of them."""
        runner = await asyncio.shield(self._building)
        async with aclosing(coalesce(_singly(runner.run(decode_request(payload))))) as batches:
            async for events in batches:
                yield encode_events(events)

    async def start(self, payload: bytes, done: bytes) -> bytes:
        """Begins a run in the background. Nothing, or the packed failure of one that was refused."""
        runner = await asyncio.shield(self._building)
        return await _refusal(runner.start(decode_request(payload), decode_checkpoints(done)))

    async def resume(self, tenant: str, run_id: str, deadline: float | None) -> bytes:
        """Goes on with a run in the background. Nothing, or the packed failure of one that was refused."""
        runner = await asyncio.shield(self._building)
        return await _refusal(runner.resume(tenant, run_id, deadline))

    async def ready(self) -> bool:
        return self._building.done() and self._building.exception() is None

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve where replicas come and go."""
        return self._building.result().counts() if await self.ready() else {}

    async def check_health(self) -> None:
        for function, state in self._batches.states().items():
            self._watch(state, function)
        for task in (self._building, *self._attending):
            if task.done():
                await task

    async def __del__(self) -> None:
        """Awaited by Serve once the last run of this replica that somebody reads has ended."""
        for task in self._attending:
            task.cancel()
        if await self.ready():
            await self._building.result().hand_over()
        await asyncio.gather(
            self._log.flush(), self._results.flush(), *(server.close() for server in self._servers.values())
        )

    async def _build(self) -> Runner:
        indexes = {name: await self._build_index(name) for name in self._settings.indexes}
        plans = load_plans(self._settings)
        timings = await self._measured(plans)
        if timings:
            plans = load_plans(self._settings, timings)
        resources = Resources(
            self._pools,
            indexes,
            http_client(self._settings),
            self._servers,
            ApprovalBook(self._store, sealing=self._sealing),
            partial(open_chain, selector=self._selector()),
            Savings(
                self._results,
                counts=Counts(SavingsMetrics()),
                claims=claims_of(self._settings, self._results),
            ),
            self._batches,
        )
        return Runner(plans.values(), resources, self._log, self._journals)

    def _selector(self) -> dict[str, str]:
        """Of the nodes that its functions run on: those that it runs on itself."""
        pools = pools_of(self._settings.runner, self._settings.node_pools)
        return pool_selector(pools) if pools else {}

    async def _measured(self, plans: Mapping[str, ExecutionPlan]) -> dict[str, dict[str, float]]:
        """What the nodes of these plans took in earlier runs; nothing while the store is out."""
        try:
            timings = TimingStore(self._store)
            means = {name: await timings.means(plan.hash) for name, plan in plans.items()}
        except StoreUnavailable:
            return {}
        return {name: seconds for name, seconds in means.items() if seconds}

    async def _end_cancelled(self) -> None:
        await end_cancelled(await asyncio.shield(self._building), self._runs)

    async def _attend(self) -> None:
        runner = await asyncio.shield(self._building)
        await attend(runner, self._journals, self._settings.runs.lease)

    async def _build_index(self, name: str) -> Index:
        spec = self._settings.indexes[name]
        pool = self._pools[spec.model]
        while not await pool.ready():  # noqa: ASYNC110  (of another process: nothing to wait on)
            await asyncio.sleep(0.2)
        return await Index.build(
            name, spec.corpus, pool, cache_dir=self._settings.data_dir / "indexes" / name
        )


class AccountantReplica:
    """Keeps the tables of usage. One is enough: nothing waits for it."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        engine = await asyncio.to_thread(open_tables, settings.usage_url)
        watch = CallMetrics([spec.name for spec in settings.models])
        self._book = Accountant(connect_store(settings), engine, keep_s=settings.usage.keep, watch=watch)
        self._work = asyncio.create_task(self._book.run())
        collect_less_often()

    async def ask(self, payload: bytes) -> bytes:
        """Answers a packed `UsageQuery`."""
        return await reply_of(self._book, payload)

    async def check_health(self) -> None:
        if self._work.done():
            await self._work


@serve.ingress()
class GatewayReplica:
    """The HTTP front door, as `serve_apps.gateway.app` builds it."""

    def __init__(
        self,
        settings: Settings,
        handles: dict[str, DeploymentHandle],
        runner: DeploymentHandle | None,
        _keeper: DeploymentHandle | None,  # bound so that it is deployed; nobody calls it
        accountant: DeploymentHandle,
    ) -> None:
        self._settings = settings
        self._handles = handles
        self._runner = runner
        self._accountant = accountant
        self._front: gateway.Front | None = None

    async def stop(self, grace_s: float) -> int:
        """Said to all gateways before the system is taken down: what is in flight ends, within the grace or
        by being broken off. How many calls were broken off."""
        return await self._front.stop(grace_s) if self._front is not None else 0

    async def __serve_build_asgi_app__(self) -> Any:
        settings = self._settings
        store = connect_store(settings, fail_fast=True)
        grace_s = settings.known_keys_s
        sealing = await asyncio.to_thread(load_sealing, settings, os.environ)
        plans, deployed = await asyncio.to_thread(load_deployed, settings)
        pepper = await asyncio.to_thread(load_or_create_pepper, settings.pepper_file)
        counters = await asyncio.to_thread(token_counters, settings)
        collect_less_often()
        self._front = gateway.build_app(
            GatewayDeps(
                pools=build_pools(settings, self._handles, counters),
                tokenizers={name: each for name, each in counters.items() if isinstance(each, Tokenizer)},
                keys=KeyStore(store, pepper, grace_s=grace_s),
                audit=AuditLog(store, pepper),
                directory=Directory(store, grace_s=grace_s),
                quotas=QuotaLedger(store),
                contexts=ContextStore(store, ttl_s=settings.context.ttl_s),
                runs=RunStore(store, keep_s=settings.runs.keep, sealing=sealing),
                journals=journals(settings, store, sealing),
                approvals=ApprovalBook(store, sealing=sealing),
                answers=AnswerStore(store, sealing=sealing),
                traffic=splits_of(settings),
                prices=prices_of(settings.models),
                responses=ResponseStore(store, sealing=sealing),
                usage=HandleBook(self._accountant),
                tasks=settings.tasks,
                graphs={name: info_of(plan) for name, plan in plans.items()},
                runner=_runner(settings, self._runner),
                inline=InlinePipelines(deployed) if self._runner is not None else None,
                parts={"store": lambda: _answers(store)},
                local_share=local_share(settings),
                persons=Persons(settings.auth.oidc) if settings.auth.oidc else None,
                says_ids=False,  # Serve adds `x-request-id` to every answer by itself
                settings=settings.gateway,
            )
        )
        return self._front


def _runner(settings: Settings, handle: DeploymentHandle | None) -> HandleRunner | None:
    if handle is None:
        return None
    return HandleRunner(handle, on_demand=not settings.runner.least_replicas)


def local_share(settings: Settings) -> LocalShare | None:
    """What admits calls while the store is out, where that is the policy."""
    refuses = settings.quotas.when_store_is_out == "refuse"
    return None if refuses else LocalShare(settings.gateway.replicas)


def splits_of(settings: Settings) -> dict[str, Split]:
    """Of the names whose calls several answer."""
    return {name: Split(name, weights) for name, weights in settings.traffic.items()}


def connect_store(settings: Settings, *, fail_fast: bool = False) -> Store:
    """The store of the settings, for this process's event loop."""
    url = settings.store.url or EmbeddedValkey(settings.store_dir).url
    return Store.connect(url, timeout_s=settings.store.timeout_s, fail_fast=fail_fast)


def journals(settings: Settings, store: Store, sealing: Sealing) -> StoredJournals:
    """The journals of runs, as this process sees them."""
    runs = settings.runs
    return StoredJournals(store, uuid4().hex, lease_s=runs.lease, keep_s=runs.keep, sealing=sealing)


def claims_of(settings: Settings, results: Results) -> Claims | None:
    """What runners share the making of results by; None where there is never more than one."""
    return Claims(results) if settings.runner.most_replicas > 1 else None


def token_counters(settings: Settings) -> dict[str, TokenCounter]:
    """What counts the tokens of each model of the settings, by its name."""
    hosts = {spec.name: host_of(spec, settings.models) for spec in settings.models}
    counters = {host.name: token_counter(host, settings.data_dir) for host in hosts.values()}
    return {name: counters[host.name] for name, host in hosts.items()}


def build_pools(
    settings: Settings, handles: Mapping[str, DeploymentHandle], counters: Mapping[str, TokenCounter]
) -> dict[str, Pool]:
    """Every model of the settings as a pool, wherever it runs."""
    pools: dict[str, Pool] = {}
    for spec in settings.models:
        host = host_of(spec, settings.models)
        info, counter = model_info(spec, host), counters[spec.name]
        if isinstance(spec, RemoteSpec):
            remote = remote_pool(spec, info, counter, os.environ)
            pools[spec.name] = FairPool(remote, spec.max_connections, settings.weights)
        else:
            on_demand = isinstance(host, ReplicatedSpec) and not host.least_replicas
            pools[spec.name] = HandlePool(info, handles[host.name], counter, on_demand=on_demand)
    return pools


def http_client(settings: Settings) -> HttpClient:
    """What `http` nodes may reach, with the secrets that this process has in its environment."""
    secrets = {name: os.environ[name] for name in settings.http.env if name in os.environ}
    return HttpClient(settings.http.by_name(), secrets)


def mcp_servers(settings: Settings) -> dict[str, McpServer]:
    """What `tool` nodes may call. Raises `ConfigError` where a secret of one is not in the environment."""
    if not settings.mcp:
        return {}
    # Half a second and 23 MB of every process, for the few deployments that have servers.
    from runtime.mcp.client import McpServer

    return {
        name: McpServer(name, spec, secrets_of(name, spec, os.environ)) for name, spec in settings.mcp.items()
    }


async def _singly(events: AsyncGenerator[RunEvent, None]) -> AsyncGenerator[list[RunEvent], None]:
    async with aclosing(events):
        async for event in events:
            yield [event]


async def _refusal(asked: Awaitable[None]) -> bytes:
    try:
        await asked
    except ClusterError as error:
        return encode_failure(error.as_failure())
    return b""


async def _answers(store: Store) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


def _running(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
