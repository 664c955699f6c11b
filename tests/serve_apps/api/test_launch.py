"""Runs in the background and runs that go on when their runner dies, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.store.client import Store
from serve_apps.gateway.limits import Limits
from tests.serve_apps.api.durable import PIPELINE, SLOW_END, StartDesk, desks, numbered, types
from tests.serve_apps.api.test_graphs import start_helper
from tests.serve_apps.conftest import Start, eventually


@pytest.fixture
async def desk(start: Start, one_store: Store) -> AsyncIterator[StartDesk]:
    async with desks(start, one_store) as start_one:
        yield start_one


async def test_a_run_in_the_background_is_accepted_and_goes_on(desk: StartDesk) -> None:
    at = await desk()
    answer = await at.run(background=True)
    assert answer.status_code == 202
    run_id = answer.headers["x-run-id"]
    assert answer.headers["location"] == f"/v1/runs/{run_id}"
    assert answer.json() == {
        "run_id": run_id,
        "graph": "letter",
        "status": "running",
        "links": {
            "self": f"/v1/runs/{run_id}",
            "events": f"/v1/runs/{run_id}/events",
            "cancel": f"/v1/runs/{run_id}/cancel",
            "approvals": f"/v1/runs/{run_id}/approvals",
        },
    }
    record = await at.is_now(run_id, "succeeded")
    assert record["outputs"]["values"] == {"draft": "draft", "text": "polished at last"}
    usage = record["usage"]
    totals = await at.site.settled()
    assert (totals.requests, totals.tokens) == (1, usage["prompt_tokens"] + usage["completion_tokens"])


async def test_a_run_can_be_looked_at_as_soon_as_it_is_accepted(desk: StartDesk) -> None:
    at = await desk(SLOW_END)
    run_id = await at.begin()
    record = await at.look(run_id)
    assert (record["status"], record["graph"], record["version"]) == ("running", "letter", "1.2.0")
    assert record["inputs"]["values"]["topic"] == "thanks"


async def test_a_background_run_that_is_streamed_outlives_its_reader(desk: StartDesk) -> None:
    at = await desk(SLOW_END)
    body = {"inputs": {"topic": "thanks"}, "background": True, "stream": True}
    async with at.site.http.stream("POST", "/v1/graphs/letter/runs", json=body, timeout=120) as reply:
        run_id = reply.headers["x-run-id"]
        async for line in reply.aiter_lines():
            if line == "event: node_delta":
                break
    assert (await at.look(run_id))["status"] == "running"
    await at.at_work()
    await at.site.http.post(f"/v1/runs/{run_id}/cancel")
    events = await at.events(run_id)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert "node_delta" in types(events)
    assert types(events)[-1] == "run_failed"


async def test_what_a_background_run_may_not_be(desk: StartDesk) -> None:
    at = await desk(pipeline=PIPELINE.replace("boolean, default: false", "boolean, default: false"))
    wrong = await at.run(background=True, contextId="c-1")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "contextId")
    for body, param in (
        ({"durability": "always"}, "durability"),
        ({"token_budget": 0}, "token_budget"),
        ({"background": 1}, "background"),
    ):
        wrong = await at.run(**body)
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, param)


async def test_a_background_run_is_within_the_quota(desk: StartDesk) -> None:
    at = await desk(SLOW_END, limits=Limits(tokens_per_minute=200))
    run_id = await at.begin()
    refused = await at.run(background=True)
    assert refused.status_code == 429
    await at.at_work()
    assert (await at.site.totals()).reserved == 140
    await at.post(run_id, "cancel")
    record = await at.is_now(run_id, "cancelled")
    totals = await at.site.settled()
    usage = record["usage"]
    assert 0 < totals.tokens == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_token_budget_bounds_the_run_and_its_reservation(desk: StartDesk) -> None:
    at = await desk(limits=Limits(tokens_per_minute=200))
    answer = await at.run(token_budget=4)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "token_budget_exceeded")
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == 196


async def test_inputs_of_a_background_run_are_refused_at_once_and_cost_nothing(desk: StartDesk) -> None:
    at = await desk()
    answer = await at.run(3, background=True)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "inputs.topic")
    assert (await at.site.totals()).requests == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_durable_run_goes_on_for_its_client_when_its_runner_dies(
    desk: StartDesk, stream: bool
) -> None:
    at = await desk()
    at.door.dies_at = "draft"
    answer = await at.run(durability="step", stream=stream)
    assert answer.status_code == 200
    if stream:
        events = numbered(answer.text)
        told = types(events)
        assert told[0] == "run_started"
        assert told.count("run_resumed") == 1
        (resumed,) = [event for _, event in events if event["type"] == "run_resumed"]
        assert (resumed["attempt"], resumed["completed"]) == (2, 1)
        finished = [event["node"] for _, event in events if event["type"] == "node_finished"]
        assert finished.count("draft") == 1
        end = events[-1][1]
    else:
        end = answer.json()
        assert [node["node"] for node in end["nodes"]].count("draft") == 1
    assert end["outputs"] == {"draft": "draft", "text": "polished at last"}
    assert at.asked("draft of") == 1
    usage = end["usage"]
    assert (await at.site.settled()).tokens == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("durability", ["none", "exit"])
async def test_another_run_ends_with_its_runner(desk: StartDesk, durability: str) -> None:
    at = await desk()
    at.door.dies_at = "draft"
    answer = await at.run(durability=durability)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_lost")
    assert (await at.site.settled()).open == 0


async def test_who_leaves_a_run_that_goes_on_elsewhere_ends_it(desk: StartDesk) -> None:
    at = await desk(SLOW_END)
    at.door.dies_at = "draft"
    leaving = asyncio.create_task(at.run(durability="step"))

    runs: list[dict[str, Any]] = []

    async def taken_up() -> bool:
        runs[:] = (await at.site.http.get("/v1/runs?status=running")).json()["data"]
        return [run["attempt"] for run in runs] == [2]

    await eventually(taken_up)
    run_id = runs[0]["run_id"]
    leaving.cancel()
    await asyncio.wait([leaving])
    assert (await at.is_now(run_id, "cancelled"))["attempt"] == 2


async def test_the_graph_says_what_is_kept_when_the_caller_does_not(desk: StartDesk) -> None:
    at = await desk(pipeline=PIPELINE.replace("outputs:\n", "policies: {durability: step}\noutputs:\n"))
    run_id = (await at.run()).json()["run_id"]
    assert types(await at.events(run_id))[-1] == "run_finished"
    other = (await at.run(durability="none")).json()["run_id"]
    await at.is_now(other, "succeeded")
    refused = await at.site.http.get(f"/v1/runs/{other}/events")
    assert refused.json()["error"]["code"] == "events_not_kept"


async def test_a_chat_with_a_durable_graph_goes_on(desk: StartDesk) -> None:
    chat = "chat: {input: topic, output: text}\npolicies: {durability: step}\noutputs:\n"
    at = await desk(pipeline=PIPELINE.replace("outputs:\n", chat))
    at.door.dies_at = "draft"
    messages: Any = [{"role": "user", "content": "thanks"}]
    answer = await at.site.sdk.chat.completions.create(model="graph/letter", messages=messages)
    assert answer.choices[0].message.content == "polished at last"


async def test_an_idempotency_key_begins_one_run(desk: StartDesk) -> None:
    at = await desk()
    headers = {"idempotency-key": "k1"}
    first, again = [await at.run(background=True, headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert again.headers["location"] == first.headers["location"]
    assert len((await at.site.http.get("/v1/runs")).json()["data"]) <= 1
    await at.is_now(first.json()["run_id"], "succeeded")
    assert (await at.site.settled()).requests == 1


async def test_without_journals_nothing_goes_on_in_the_background(start: Start) -> None:
    site = await start_helper(start)
    body = {"inputs": {"question": "why"}, "background": True}
    answer = await site.http.post("/v1/graphs/helper/runs", json=body)
    assert answer.status_code == 400
    assert (await site.settled()).tokens == 0
