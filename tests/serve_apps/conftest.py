"""A whole gateway over fakes and a real store, served by uvicorn on a free loopback port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest
import uvicorn

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.interface import ModelInfo, Pool
from cluster.pools.local import LocalPool
from cluster.tokens import Tokenizer
from runtime.approvals.book import ApprovalBook
from runtime.context.store import ContextStore
from runtime.durability.journal import Journals
from runtime.records.store import RunStore
from runtime.runner import GraphInfo
from runtime.store.client import Store
from serve_apps.accounting.book import UsageBook
from serve_apps.audit.log import AuditLog
from serve_apps.gateway.app import Front, build_app
from serve_apps.gateway.demand import Price
from serve_apps.gateway.deps import GatewayDeps, Runner
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.http import ASGIApp
from serve_apps.gateway.idempotency import AnswerStore
from serve_apps.gateway.inline import InlinePipelines
from serve_apps.gateway.key_tokens import PEPPER_BYTES
from serve_apps.gateway.keys import KeyRecord, KeyStore
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.oidc.persons import Persons
from serve_apps.gateway.quotas import QuotaLedger, Totals
from serve_apps.gateway.responses import ResponseStore
from serve_apps.gateway.traffic import Split
from serve_apps.settings import GatewaySettings

CHAT = "tiny-chat"
EMBED = "tiny-embed"
MAX_CONTEXT = 200
DEFAULT_MAX_TOKENS = 32


@dataclass
class Site:
    """A running gateway, and the parts behind it to look at."""

    app: Front
    deps: GatewayDeps
    engine: FakeEngine
    token: str
    key: KeyRecord
    http: httpx.AsyncClient
    """Sends the key. Relative URLs."""
    sdk: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic

    @property
    def url(self) -> str:
        return str(self.http.base_url)

    async def totals(self) -> Totals:
        return await self.deps.quotas.totals(self.key.tenant, self.key.key_id)

    async def settled(self) -> Totals:
        """The ledger, once nothing is open."""
        await eventually(self._nothing_open)
        return await self.totals()

    async def _nothing_open(self) -> bool:
        return (await self.totals()).open == 0

    async def chat(self, text: str | list[dict[str, Any]] = "hello there", **fields: Any) -> httpx.Response:
        body = {"model": CHAT, "messages": [{"role": "user", "content": text}], **fields}
        return await self.http.post("/v1/chat/completions", json=body)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Returns once it holds. Fails the test when it does not in time."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.01)


def chat_pool(engine: FakeEngine) -> LocalPool:
    info = ModelInfo(CHAT, "generate", MAX_CONTEXT, DEFAULT_MAX_TOKENS, created=1_700_000_000)
    return LocalPool(info, engine, FakeTokenCounter())


def embed_pool(engine: FakeEngine) -> LocalPool:
    return LocalPool(ModelInfo(EMBED, "embed", MAX_CONTEXT, 0), engine, FakeTokenCounter())


@contextlib.asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """The URL under which uvicorn serves the application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on", ws="none"))
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if serving.done():
                await serving
                raise RuntimeError("uvicorn ended before it served")
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def running(deps: GatewayDeps, engine: FakeEngine, token: str, key: KeyRecord) -> AsyncIterator[Site]:
    """A gateway over these parts, and clients that show it this key."""
    app = build_app(deps)
    async with (
        served(app) as url,
        httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=120) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0) as sdk,
        anthropic.AsyncAnthropic(base_url=url, api_key=token, max_retries=0) as other_sdk,
    ):
        yield Site(app, deps, engine, token, key, http, sdk, other_sdk)


@pytest.fixture
async def one_store(valkey_url: str) -> AsyncIterator[Store]:
    """The embedded Valkey, empty."""
    store = Store.connect(valkey_url, timeout_s=20.0)
    await store.execute("FLUSHALL")
    yield store
    await store.close()


@pytest.fixture
def keys(one_store: Store) -> KeyStore:
    return KeyStore(one_store, bytes(PEPPER_BYTES))


Start = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start(one_store: Store, keys: KeyStore) -> AsyncIterator[Start]:
    """Starts gateways that end with the test."""
    async with contextlib.AsyncExitStack() as ending:

        async def start_one(
            script: FakeScript | None = None,
            *,
            limits: Limits | None = None,
            models: list[str] | None = None,
            settings: GatewaySettings | None = None,
            pools: Mapping[str, Pool] | None = None,
            graphs: Mapping[str, GraphInfo] | None = None,
            runner: Runner | None = None,
            journals: Journals | None = None,
            inline: InlinePipelines | None = None,
            usage: UsageBook | None = None,
            prices: Mapping[str, Price] | None = None,
            functions: bool = False,
            tasks: Mapping[str, str] | None = None,
            traffic: Mapping[str, Mapping[str, float]] | None = None,
            tokenizers: Mapping[str, Tokenizer] | None = None,
            persons: Persons | None = None,
            says_ids: bool = True,
            ready: bool = True,
        ) -> Site:
            engine = FakeEngine(script)
            deps = GatewayDeps(
                pools={CHAT: chat_pool(engine), EMBED: embed_pool(engine)} if pools is None else pools,
                keys=keys,
                audit=AuditLog(one_store, bytes(PEPPER_BYTES)),
                directory=Directory(one_store),
                quotas=QuotaLedger(one_store),
                contexts=ContextStore(one_store),
                runs=RunStore(one_store),
                approvals=ApprovalBook(one_store),
                answers=AnswerStore(one_store),
                responses=ResponseStore(one_store),
                tokenizers={CHAT: FakeTokenCounter()} if tokenizers is None else tokenizers,
                tasks=tasks or {},
                traffic={name: Split(name, weights) for name, weights in (traffic or {}).items()},
                graphs=graphs or {},
                prices=prices or {},
                usage=usage,
                runner=runner,
                journals=journals,
                inline=inline,
                persons=persons,
                says_ids=says_ids,
                settings=settings or GatewaySettings(),
            )
            token, key = await keys.create(
                "acme", "tests", allowance=Allowance(limits or Limits()), models=models, functions=functions
            )
            site = await ending.enter_async_context(running(deps, engine, token, key))
            if ready:
                await eventually(lambda: _is_ready(site))
            return site

        yield start_one


async def _is_ready(site: Site) -> bool:
    return (await site.http.get("/readyz")).status_code == 200


@pytest.fixture
async def site(start: Start) -> Site:
    """A gateway over the fake engine, with nothing special about it."""
    return await start()
