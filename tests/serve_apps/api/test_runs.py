"""Runs after the fact, and their end on request; on the real runner over the fake engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.messages import Failure
from graphs.loader import load
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.records.cancelling import end_cancelled
from runtime.records.log import RunLog
from runtime.records.model import RunFault, RunRecord
from runtime.records.store import RunStore
from runtime.runner import Runner
from runtime.store.client import Store
from serve_apps.gateway.keys import KeyStore
from tests.serve_apps.api.test_graphs import PIPELINE, InProcess
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, embed_pool, eventually

RULES = [
    Rule(contains="break", reply="half", failure=Failure("EngineFailed", "secret"), failure_after=1),
    Rule(contains="", reply="In a kind way: yes."),
]
StartRuns = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start_runs(start: Start, one_store: Store) -> AsyncIterator[StartRuns]:
    """Starts a gateway whose runner keeps records and looks for runs to cancel, as a deployed one does."""
    async with AsyncExitStack() as ending:

        async def start_one(token_s: float = 0.0) -> Site:
            records = RunStore(one_store)
            log = RunLog(records)
            engine = FakeEngine(FakeScript(token_s=token_s, rules=RULES))
            pools = {CHAT: chat_pool(engine), EMBED: embed_pool(engine)}
            catalog = Catalog(models={name: pool.info for name, pool in pools.items()}, indexes={})
            pipelines = (PIPELINE, PIPELINE.replace("name: helper", "name: other"))
            plans = [compile_pipeline(load(text).pipeline, catalog) for text in pipelines]
            runner = Runner(plans, Resources(pools), log)
            for task in (log.write(), end_cancelled(runner, records, every_s=0.01)):
                ending.push_async_callback(_ended, asyncio.create_task(task))
            site = await start(pools=pools, graphs=runner.infos, runner=InProcess(runner))
            site.engine = engine
            return site

        yield start_one


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def run(site: Site, question: str = "well?", graph: str = "helper", **body: Any) -> httpx.Response:
    return await site.http.post(
        f"/v1/graphs/{graph}/runs", json={"inputs": {"question": question}, **body}, timeout=30
    )


async def ended(site: Site, run_id: str) -> dict[str, Any]:
    """The record, once the run has ended and that is written."""
    found: dict[str, Any] = {}

    async def look() -> bool:
        response = await site.http.get(f"/v1/runs/{run_id}")
        found.update(response.json())
        return response.status_code == 200 and found["status"] != "running"

    await eventually(look)
    return found


async def test_a_run_can_be_looked_at_later(start_runs: StartRuns) -> None:
    site = await start_runs()
    answer = await run(site)
    run_id = answer.json()["run_id"]
    assert answer.headers["x-run-id"] == run_id
    record = await ended(site, run_id)
    assert {**record, "nodes": [], "started": 0, "deadline": 0, "plan_hash": ""} == {
        "run_id": run_id,
        "tenant": "acme",
        "graph": "helper",
        "version": "1.2.0",
        "plan_hash": "",
        "status": "succeeded",
        "started": 0,
        "deadline": 0,
        "seconds": answer.json()["seconds"],
        "usage": answer.json()["usage"],
        "error": None,
        "attempt": 1,
        "inputs": {"values": {"question": "well?", "tone": "kind"}, "left_out": {}},
        "outputs": {"values": {"text": "In a kind way: yes."}, "left_out": {}},
        "nodes": [],
        "nodes_left_out": 0,
    }
    assert [(node["node"], node["kind"], node["status"]) for node in record["nodes"]] == [
        ("ask", "prompt", "succeeded"),
        ("answer", "llm", "succeeded"),
    ]
    assert record["nodes"][1]["usage"] == record["usage"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_with_a_graph_tells_its_run(start_runs: StartRuns, stream: bool) -> None:
    site = await start_runs()
    body = {"model": "graph/helper", "messages": [{"role": "user", "content": "well?"}], "stream": stream}
    answer = await site.http.post("/v1/chat/completions", json=body)
    record = await ended(site, answer.headers["x-run-id"])
    assert record["status"] == "succeeded"


async def test_a_failed_run_says_why_without_secrets(start_runs: StartRuns) -> None:
    site = await start_runs()
    answer = await run(site, "please break")
    assert answer.status_code == 503
    record = await ended(site, answer.headers["x-run-id"])
    fault = {"kind": "EngineFailed", "message": "The engine failed at this call.", "node": "answer"}
    assert (record["status"], record["error"]) == ("failed", fault)
    listed = (await site.http.get("/v1/runs")).json()["data"]
    assert listed[0]["error"] == fault


async def test_a_run_of_a_kind_of_error_that_nobody_foresaw(site: Site) -> None:
    odd = RunRecord("run-1", "acme", "helper", "1", "h", "failed", 1.0, 2.0, error=RunFault("Odd", "secret"))
    await site.deps.runs.write([odd])
    message = (await site.http.get("/v1/runs/run-1")).json()["error"]["message"]
    assert message == "The call failed. Quote request id run-1 to its operator."


async def test_runs_are_listed_from_the_newest(start_runs: StartRuns) -> None:
    site = await start_runs()
    ids = [(await run(site, graph=graph)).json()["run_id"] for graph in ("helper", "other", "helper")]
    for run_id in ids:
        await ended(site, run_id)
    first = (await site.http.get("/v1/runs?limit=2")).json()
    assert [each["run_id"] for each in first["data"]] == [ids[2], ids[1]]
    assert (first["has_more"], first["last_id"], first["object"]) == (True, ids[1], "list")
    assert "nodes" not in first["data"][0]
    second = (await site.http.get(f"/v1/runs?limit=2&after={first['last_id']}")).json()
    assert ([each["run_id"] for each in second["data"]], second["has_more"]) == ([ids[0]], False)
    others = (await site.http.get("/v1/runs?graph=other")).json()
    assert [each["run_id"] for each in others["data"]] == [ids[1]]
    assert (await site.http.get("/v1/runs?graph=none")).json()["last_id"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("gaph=a", "gaph"),
    ],
)
async def test_wrong_parameters_are_named(site: Site, query: str, param: str) -> None:
    answer = await site.http.get(f"/v1/runs?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_run_is_ended_on_request(start_runs: StartRuns) -> None:
    site = await start_runs(token_s=60)
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(run(site, "please wait"))
        await eventually(lambda: _generating(site))
        run_id = (await site.http.get("/v1/runs")).json()["data"][0]["run_id"]
        going = (await site.http.get(f"/v1/runs/{run_id}")).json()
        assert (going["status"], going["outputs"]["values"]) == ("running", {})
        cancelled = await site.http.post(f"/v1/runs/{run_id}/cancel")
        assert cancelled.json() == {"run_id": run_id, "status": "cancelling"}
    answer = answering.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "run_cancelled")
    assert answer.headers["x-run-id"] == run_id
    status = await site.engine.status()
    assert (status.running, status.aborted) == (0, 1)
    record = await ended(site, run_id)
    assert (record["status"], record["error"]["kind"]) == ("cancelled", "RunCancelled")
    assert [node["status"] for node in record["nodes"]] == ["succeeded", "cancelled"]
    assert (await site.settled()).open == 0
    assert await site.deps.audit.newest(site.key.tenant, 10) == []  # a service ends its own
    again = await site.http.post(f"/v1/runs/{run_id}/cancel")
    assert again.json() == {"run_id": run_id, "status": "cancelled"}


async def test_a_streamed_run_ends_with_run_failed(start_runs: StartRuns) -> None:
    site = await start_runs(token_s=60)
    seen: list[dict[str, Any]] = []
    body = {"inputs": {"question": "please wait"}, "stream": True}
    async with site.http.stream("POST", "/v1/graphs/helper/runs", json=body, timeout=120) as events:
        async for line in events.aiter_lines():
            if not line.startswith("data: "):
                continue
            seen.append(json.loads(line[6:]))
            if seen[-1]["type"] == "node_called":
                await _cancel(site, seen[0]["run_id"])
    assert seen[-1]["type"] == "run_failed"
    assert seen[-1]["failure"]["kind"] == "RunCancelled"
    assert seen[-1]["failure"]["message"].startswith("the run was cancelled")


async def _generating(site: Site) -> bool:
    return (await site.engine.status()).running == 1 and bool(
        (await site.http.get("/v1/runs")).json()["data"]
    )


async def test_whoever_may_end_the_runs_of_others_is_written_down(
    start_runs: StartRuns, keys: KeyStore
) -> None:
    site = await start_runs(token_s=60)
    boss, record = await keys.create(site.key.tenant, "boss", role="owner")
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(run(site, "please wait"))
        await eventually(lambda: _generating(site))
        run_id = (await site.http.get("/v1/runs")).json()["data"][0]["run_id"]
        headers = {"authorization": f"Bearer {boss}"}
        assert (await site.http.post(f"/v1/runs/{run_id}/cancel", headers=headers)).status_code == 200
    assert answering.result().status_code == 409
    (entry,) = await site.deps.audit.newest(site.key.tenant, 10)
    assert (entry.action, entry.object, entry.actor) == ("run.cancel", f"run/{run_id}", record.key_id)


async def _cancel(site: Site, run_id: str) -> None:
    async def known() -> bool:
        return (await site.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 200

    await eventually(known)


async def test_a_run_whose_client_left_is_cancelled(start_runs: StartRuns) -> None:
    site = await start_runs(token_s=60)
    leaving = asyncio.create_task(run(site, "please wait"))
    await eventually(lambda: _generating(site))
    run_id = (await site.http.get("/v1/runs")).json()["data"][0]["run_id"]
    leaving.cancel()
    await asyncio.wait([leaving])
    assert (await ended(site, run_id))["status"] == "cancelled"


async def test_others_runs_are_not_there(start_runs: StartRuns, keys: KeyStore) -> None:
    site = await start_runs()
    run_id = (await run(site)).json()["run_id"]
    await ended(site, run_id)
    rival, _ = await keys.create("rivals", "spy")
    narrow, _ = await keys.create("acme", "narrow", models=["graph/other"])
    for token in (rival, narrow):
        site.http.headers["authorization"] = f"Bearer {token}"
        assert (await site.http.get("/v1/runs")).json()["data"] == []
        for response in (
            await site.http.get(f"/v1/runs/{run_id}"),
            await site.http.post(f"/v1/runs/{run_id}/cancel"),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (404, "run_not_found")


@pytest.mark.parametrize("path", ["/v1/runs", "/v1/runs/x"])
async def test_without_a_key(site: Site, path: str) -> None:
    response = await site.http.get(path, headers={"authorization": ""})
    assert response.status_code == 401


async def test_ids_that_are_none(site: Site) -> None:
    assert (await site.http.get("/v1/runs/a:b")).json()["error"]["code"] == "invalid_name"
    assert (await site.http.get("/v1/runs/nothing")).json()["error"]["code"] == "run_not_found"


async def test_the_document_tells_of_runs(site: Site) -> None:
    paths = (await site.http.get("/openapi.json")).json()["paths"]
    listed = {each["name"]: each["in"] for each in paths["/v1/runs"]["get"]["parameters"]}
    assert listed == {"limit": "query", "graph": "query", "status": "query", "after": "query"}
    assert paths["/v1/runs/{run_id}/cancel"]["post"]["parameters"][0]["name"] == "run_id"
