"""From a call to a line of the report, over the whole gateway: to the token, nanosecond and nanodollar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import httpx
import msgspec
import pytest
from sqlalchemy import Engine, select

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter, Rule
from cluster.engines.serving import EngineEndpoint
from cluster.errors import from_failure
from cluster.interface import Batch, ModelInfo
from cluster.messages import (
    Embed,
    Embeddings,
    EngineStatus,
    Failure,
    Generate,
    decode_embeddings,
    decode_events,
    decode_status,
    encode,
)
from graphs.loader import load
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.events import RunEvent
from runtime.executor.kinds.kind import Resources
from runtime.request import RunRequest
from runtime.runner import Runner, info_of
from runtime.store.client import Store
from serve_apps.accounting.accountant import Accountant
from serve_apps.accounting.model import Share
from serve_apps.accounting.schema import calls
from serve_apps.gateway.demand import Price
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, eventually

PIPELINE = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: rag, version: 1.0.0}
inputs: {question: string}
nodes:
  vector: {embed: {model: tiny-embed, max_prompt_tokens: 50}, with: {text: "${inputs.question}"}}
  draft:
    llm: {model: tiny-chat, prompt: "draft of {{ question }}", max_tokens: 20, max_prompt_tokens: 50}
    with: {question: "${inputs.question}"}
  answer:
    llm: {model: tiny-chat, prompt: "polish {{ text }}", max_tokens: 20, max_prompt_tokens: 50, stream: true}
    with: {text: "${draft.text}"}
outputs: {text: "${answer.text}", vector: "${vector.embedding}"}
"""
BROKEN = "broken"
SCRIPT = FakeScript(
    rules=[
        Rule(contains="endless", reply="one " + "more " * 30),
        Rule(contains=BROKEN, reply="one two three", failure=Failure("EngineFailed", "x"), failure_after=2),
        Rule(contains="polish fail", reply="one two", failure=Failure("EngineFailed", "x"), failure_after=1),
        Rule(contains="draft of fail", reply="fail"),
    ],
    output_tokens=5,
)
PRICES = {CHAT: Price(2_000, 500, 8_000, 10**9, "config"), EMBED: Price(second=5 * 10**9, by="config")}


class Endpoint(EngineEndpoint):
    def __init__(self, engine: FakeEngine) -> None:
        self.served = engine


class EndpointPool:
    """A replica of a model as the gateway reaches it, without Ray between them."""

    def __init__(self, info: ModelInfo, engine: FakeEngine) -> None:
        self.info = info
        self.endpoint = Endpoint(engine)

    def count_tokens(self, call: Generate | Embed) -> int:
        return FakeTokenCounter().count(call)

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        if not call.stream:
            yield whole(await self.endpoint.call(encode(call)))
            return
        async with aclosing(self.endpoint.stream(encode(call))) as items:
            async for item in items:
                yield whole(item)

    async def embed(self, call: Embed) -> Embeddings:
        made = decode_embeddings(await self.endpoint.call(encode(call)))
        assert isinstance(made, Embeddings)
        return made

    async def ready(self) -> bool:
        return True

    async def status(self) -> EngineStatus:
        return decode_status(await self.endpoint.status())


def whole(item: bytes) -> Batch:
    *events, last = decode_events(item)
    if isinstance(last, Failure):
        raise from_failure(last)
    return cast("Batch", [*events, last])


class Door:
    """A runner in the gateway's own process."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def run(self, request: RunRequest) -> AsyncGenerator[list[RunEvent], None]:
        async with aclosing(self._runner.run(request)) as events:
            async for event in events:
                yield [event]

    async def start(self, request: RunRequest, done: Any = ()) -> None:
        raise AssertionError("no run of this test is in the background")

    async def resume(self, tenant: str, run_id: str, deadline: float | None = None) -> None:
        raise AssertionError("no run of this test is resumed")

    async def ready(self) -> bool:
        return True


class Shop:
    """A gateway, what is behind it, and who keeps its accounts."""

    def __init__(self, site: Site, pools: dict[str, EndpointPool], book: Accountant, tables: Engine) -> None:
        self.site = site
        self.pools = pools
        self.tables = tables
        self._book = book

    async def usage(self, *groups: str, **asked: str) -> list[dict[str, Any]]:
        """The report, with all that was settled in it."""
        await self.site.settled()
        while not await self._book.fold():
            pass
        answer = await self.site.http.get("/v1/usage", params={"group_by": ",".join(groups), **asked})
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["data"]
        return rows

    async def statuses(self) -> dict[str, EngineStatus]:
        return {name: await pool.status() for name, pool in self.pools.items()}

    def shares(self) -> list[Share]:
        """Of all calls that were kept."""
        with self.tables.connect() as connection:
            kept = connection.scalars(select(calls.c.shares)).all()
        return [share for each in kept for share in msgspec.json.decode(each, type=list[Share])]


@pytest.fixture
async def shop(start: Start, one_store: Store, tables: Engine) -> Shop:
    pools = {
        CHAT: EndpointPool(ModelInfo(CHAT, "generate", 200, 32), FakeEngine(SCRIPT)),
        EMBED: EndpointPool(ModelInfo(EMBED, "embed", 200, 0), FakeEngine(SCRIPT)),
    }
    plan = compile_pipeline(
        load(PIPELINE).pipeline, Catalog({name: pool.info for name, pool in pools.items()}, {})
    )
    book = Accountant(one_store, tables, keep_s=86_400.0)
    door = Door(Runner([plan], Resources(pools)))
    site = await start(pools=pools, graphs={"rag": info_of(plan)}, runner=door, usage=book, prices=PRICES)
    return Shop(site, pools, book, tables)


async def cut_off(site: Site) -> None:
    """Leaves a stream behind its first text."""
    body = {"model": CHAT, "messages": [{"role": "user", "content": "endless"}], "stream": True}
    async with (
        httpx.AsyncClient(base_url=site.url, headers=dict(site.http.headers)) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            if "one" in line:
                return


async def run(site: Site, question: str, *, stream: bool = False) -> httpx.Response:
    body = {"inputs": {"question": question}, "stream": stream}
    return await site.http.post("/v1/graphs/rag/runs", json=body)


async def test_all_that_the_engines_counted_is_in_the_report(shop: Shop) -> None:
    site = shop.site
    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(site.chat(f"question {number}", max_tokens=3 + number))
        tasks.create_task(site.chat("a stream", stream=True))
        tasks.create_task(
            site.http.post("/v1/embeddings", json={"model": EMBED, "input": ["one two", "three"]})
        )
        tasks.create_task(run(site, "what is it"))
        tasks.create_task(run(site, "and that", stream=True))
    totals = await site.settled()
    models = {row["group"]["model"]: row for row in await shop.usage("model")}
    statuses = await shop.statuses()
    for name, status in statuses.items():
        assert models[name]["input_tokens"] == status.prompt_tokens > 0
        assert models[name]["output_tokens"] == status.completion_tokens
    told = {name: sum(s.engine_ns for s in shop.shares() if s.model == name) for name in statuses}
    assert all(0 <= statuses[name].busy_ns - told[name] < 20 for name in statuses)
    [everything] = await shop.usage()
    assert (everything["requests"], everything["failed"], everything["cut"]) == (8, 0, 0)
    assert everything["input_tokens"] + everything["output_tokens"] == totals.tokens
    assert round(float(everything["cost_usd"]) * 10**9) == totals.nanodollars > 0
    assert everything["mean_first_token_seconds"] > 0


async def test_a_run_is_told_by_node(shop: Shop) -> None:
    assert (await run(shop.site, "what is it")).status_code == 200
    told = await shop.usage("node", "model", graph="rag")
    rows = {(row["group"]["node"], row["group"]["model"]): row for row in told}
    assert {at: (row["requests"], row["input_tokens"], row["output_tokens"]) for at, row in rows.items()} == {
        ("", ""): (1, 0, 0),
        ("answer", CHAT): (0, 6, 5),
        ("draft", CHAT): (0, 5, 5),
        ("vector", EMBED): (0, 3, 0),
    }
    assert rows["vector", EMBED]["engine_seconds"] > 0
    for share in shop.shares():
        usage = {"prompt_tokens": share.input_tokens, "completion_tokens": share.output_tokens}
        price = PRICES[share.model]
        tokens = usage["prompt_tokens"] * price.input + usage["completion_tokens"] * price.output
        assert share.nanodollars == round((tokens + share.engine_ns * price.second / 10**9) / 1000)
        assert share.priced_by == "config"


@pytest.mark.parametrize(("stream", "said"), [(False, 0), (True, 1)])
async def test_a_run_that_fails_is_told_by_node_too(shop: Shop, stream: bool, said: int) -> None:
    """Of a call that is not streamed nobody has seen what it said."""
    await run(shop.site, "fail", stream=stream)
    rows = await shop.usage("node", graph="rag")
    assert {
        row["group"]["node"]: (row["failed"], row["input_tokens"], row["output_tokens"]) for row in rows
    } == {
        "": (1, 0, 0),
        "answer": (0, 2, said),
        "draft": (0, 3, 1),
        "vector": (0, 1, 0),
    }


async def test_a_stream_that_is_cut_off_is_charged_for_what_was_observed(shop: Shop) -> None:
    slow = FakeEngine(FakeScript(rules=SCRIPT.rules, token_s=60))
    shop.pools[CHAT].endpoint.served = slow
    await cut_off(shop.site)

    async def aborted() -> bool:
        return (await slow.status()).aborted == 1

    await eventually(aborted)
    [row] = await shop.usage("model")
    status = await shop.pools[CHAT].status()
    assert (row["requests"], row["cut"]) == (1, 1)
    assert (
        (row["input_tokens"], row["output_tokens"])
        == (status.prompt_tokens, status.completion_tokens)
        == (1, 1)
    )
    assert 0 < row["engine_seconds"] * 10**9 <= status.untold_ns
    assert (await shop.site.settled()).nanodollars == sum(share.nanodollars for share in shop.shares()) > 0


async def test_a_call_that_breaks_is_told_as_failed(shop: Shop) -> None:
    answer = await shop.site.chat(BROKEN, stream=True)
    assert "error" in answer.text
    [row] = await shop.usage("model")
    assert (row["requests"], row["failed"], row["input_tokens"], row["output_tokens"]) == (1, 1, 1, 2)


async def test_tags_come_in_a_header_or_in_the_body(shop: Shop) -> None:
    body = {"model": CHAT, "messages": [{"role": "user", "content": "hi"}]}
    path, header = "/v1/chat/completions", {"x-tags": "project=search"}
    await shop.site.http.post(path, json={**body, "metadata": {"project": "books", "step": "1"}})
    await shop.site.http.post(
        path, json={**body, "metadata": {"project": "books", "step": "2"}}, headers=header
    )
    await shop.site.http.post("/v1/embeddings", json={"model": EMBED, "input": "a"}, headers=header)
    rows = await shop.usage("tag.project", "tag.step")
    assert {tuple(row["group"].values()): row["requests"] for row in rows} == {
        ("books", "1"): 1,
        ("search", ""): 1,
        ("search", "2"): 1,
    }
    [row] = await shop.usage(**{"tag.project": "books"})
    assert row["requests"] == 1
    refused = await shop.site.http.post(path, json=body, headers={"x-tags": "no tag"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-tags")
