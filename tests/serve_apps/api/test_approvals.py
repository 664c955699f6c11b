"""A run that waits for a person, decided over HTTP; on the real runner and store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from cluster.engines.fake import FakeEngine
from graphs.loader import load
from runtime.approvals.book import ApprovalBook
from runtime.approvals.model import Asked
from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.records.log import RunLog
from runtime.records.store import RunStore
from runtime.runner import Runner
from runtime.store.client import Store
from serve_apps.gateway.keys import KeyStore
from tests.serve_apps.api.test_graphs import InProcess
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, embed_pool, eventually

PIPELINE = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: letter}
inputs: {text: string}
nodes:
  review: {approval: {message: May this be sent?}, with: {value: "${inputs.text}"}}
  send: {value: "${review.value}", when: review.approved}
outputs:
  sent: {from: "${send.value}", optional: true}
  comment: ${review.comment}
"""
Letters = Callable[[], Awaitable[Site]]


@pytest.fixture
async def letters(start: Start, one_store: Store) -> AsyncIterator[Letters]:
    """Starts a gateway with a graph that asks before it sends."""
    async with AsyncExitStack() as ending:

        async def start_one() -> Site:
            log = RunLog(RunStore(one_store))
            plans = [compile_pipeline(load(PIPELINE).pipeline)]
            engine = FakeEngine()
            pools = {CHAT: chat_pool(engine), EMBED: embed_pool(engine)}
            runner = Runner(plans, Resources(pools, approvals=ApprovalBook(one_store)), log)
            writing = asyncio.create_task(log.write())
            ending.callback(writing.cancel)
            return await start(pools=pools, graphs=runner.infos, runner=InProcess(runner))

        yield start_one


async def send(site: Site, text: str = "Dear Ada") -> httpx.Response:
    return await site.http.post("/v1/graphs/letter/runs", json={"inputs": {"text": text}}, timeout=120)


async def asked_of(site: Site) -> str:
    """The id of the run that waits."""
    runs: list[dict[str, Any]] = []

    async def look() -> bool:
        runs[:] = (await site.http.get("/v1/runs")).json()["data"]
        if not runs:
            return False
        questions = await site.http.get(f"/v1/runs/{runs[0]['run_id']}/approvals")
        return bool(questions.json()["data"])

    await eventually(look)
    run_id: str = runs[0]["run_id"]
    return run_id


@pytest.mark.parametrize(
    ("body", "status", "outputs"),
    [
        ({"approved": True}, "approved", {"sent": "Dear Ada", "comment": None}),
        (
            {"approved": True, "value": "Dear Eve", "comment": "Wrong name"},
            "approved",
            {"sent": "Dear Eve", "comment": "Wrong name"},
        ),
        ({"approved": False, "comment": "No"}, "rejected", {"sent": None, "comment": "No"}),
    ],
)
async def test_a_decision_goes_into_the_run(
    letters: Letters, body: dict[str, Any], status: str, outputs: dict[str, Any]
) -> None:
    site = await letters()
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(send(site))
        run_id = await asked_of(site)
        url = f"/v1/runs/{run_id}/approvals"
        (question,) = (await site.http.get(url)).json()["data"]
        assert question["until"] > question["asked"]
        assert {**question, "asked": 0, "until": 0} == {
            "node": "review",
            "message": "May this be sent?",
            "value": "Dear Ada",
            "asked": 0,
            "until": 0,
            "status": "waiting",
            "comment": None,
            "decided": None,
            "by": None,
        }
        taken = await site.http.post(f"{url}/review", json=body)
        assert (taken.status_code, taken.json()) == (
            200,
            {"run_id": run_id, "node": "review", "status": status, "run_status": "running"},
        )
    assert answering.result().json()["outputs"] == outputs
    (decided,) = (await site.http.get(url)).json()["data"]
    assert (decided["status"], decided["comment"]) == (status, outputs["comment"])
    assert decided["by"] == site.key.key_id
    late = await site.http.post(f"{url}/review", json={"approved": True})
    assert (late.status_code, late.json()["error"]["code"]) == (409, "already_decided")
    (entry,) = await site.deps.audit.newest(site.key.tenant, 10)
    assert (entry.action, entry.object) == ("approval.decide", f"run/{run_id}/review")
    assert (entry.actor, entry.changed, entry.outcome) == (site.key.key_id, ["decision"], "allowed")


async def test_what_cannot_be_decided(letters: Letters, keys: KeyStore) -> None:
    site = await letters()
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(send(site))
        run_id = await asked_of(site)
        url = f"/v1/runs/{run_id}/approvals"
        for path, body, status, param in [
            (f"{url}/revew", {"approved": True}, 404, None),
            ("/v1/runs/run-0/approvals/review", {"approved": True}, 404, None),
            (f"{url}/review", {}, 400, "approved"),
            (f"{url}/review", {"approved": "yes"}, 400, "approved"),
            (f"{url}/review", {"approved": True, "coment": "x"}, 400, "coment"),
            (f"{url}/review", {"approved": True, "value": 3}, 400, "value"),
            (f"{url}/review", {"approved": True, "comment": "x" * 5_000}, 400, "comment"),
        ]:
            answer = await site.http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), body
        await site.http.post(f"{url}/review", json={"approved": True})
    assert answering.result().status_code == 200
    assert len(await site.deps.audit.newest(site.key.tenant, 10)) == 1


async def test_what_was_decided_in_the_same_moment_is_late_and_told_of(
    letters: Letters,
) -> None:
    site = await letters()
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(send(site))
        url = f"/v1/runs/{await asked_of(site)}/approvals/review"
        both = await asyncio.gather(*(site.http.post(url, json={"approved": True}) for _ in range(8)))
        assert sorted(answer.status_code for answer in both) == [200] + 7 * [409]
    assert answering.result().status_code == 200
    entries = await site.deps.audit.newest(site.key.tenant, 100)
    failed = {entry.of for entry in entries if entry.outcome == "failed"}
    assert len({entry.sequence for entry in entries if entry.outcome == "allowed"} - failed) == 1


async def test_nobody_else_sees_or_decides(letters: Letters, keys: KeyStore) -> None:
    site = await letters()
    other, _ = await keys.create("other", "a stranger")
    narrow, _ = await keys.create("acme", "without graphs", models=[CHAT])
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(send(site))
        run_id = await asked_of(site)
        url = f"/v1/runs/{run_id}/approvals"
        for token in (other, narrow):
            headers = {"authorization": f"Bearer {token}"}
            seen = await site.http.get(url, headers=headers)
            taken = await site.http.post(f"{url}/review", json={"approved": True}, headers=headers)
            assert (seen.status_code, taken.status_code) == (404, 404)
        await site.http.post(f"{url}/review", json={"approved": False})
    assert answering.result().json()["outputs"]["sent"] is None


async def test_a_question_is_known_before_the_record_of_its_run(
    letters: Letters, keys: KeyStore, one_store: Store
) -> None:
    """Neither needs the other to be written first."""
    site = await letters()
    narrow, _ = await keys.create(site.key.tenant, "without graphs", models=[CHAT])
    asked = Asked("review", "May it?", "x", time.time(), time.time() + 30, "letter")
    told = asyncio.Event()
    book = ApprovalBook(one_store)
    waiting = asyncio.create_task(book.wait(site.key.tenant, "run-7", asked, told.set))
    await told.wait()
    url = "/v1/runs/run-7/approvals"
    hidden = await site.http.get(url, headers={"authorization": f"Bearer {narrow}"})
    assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "run_not_found")
    assert [each["value"] for each in (await site.http.get(url)).json()["data"]] == ["x"]
    assert (await site.http.post(f"{url}/review", json={"approved": True})).status_code == 200
    assert (await waiting).approved


async def test_a_stream_tells_that_the_run_waits(letters: Letters) -> None:
    site = await letters()
    body = {"inputs": {"text": "Dear Ada"}, "stream": True}
    names = []
    async with site.http.stream("POST", "/v1/graphs/letter/runs", json=body, timeout=120) as events:
        async for line in events.aiter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            if line == "event: node_waiting":
                url = f"/v1/runs/{await asked_of(site)}/approvals/review"
                await site.http.post(url, json={"approved": True})
    assert names[:3] == ["run_started", "node_started", "node_waiting"]
    assert names[-1] == "run_finished"
