"""What is done with a run later: followed, resumed, forked, ended though nobody drives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.messages import Failure, Usage
from graphs.loader import load
from runtime.compiler.compile import compile_pipeline
from runtime.durability.memory import MemoryJournals
from runtime.events import RunFinished, RunStarted
from runtime.request import RunRequest
from runtime.store.client import Store
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.limits import Limits
from tests.serve_apps.api.durable import QUICK, RULES, SLOW_END, Desk, StartDesk, desks, types
from tests.serve_apps.api.inline_attacks import with_nodes
from tests.serve_apps.conftest import Start, eventually

SHOUT = with_nodes(
    '  a: {function: "tests.graphs.sample_functions:shout", with: {text: "${inputs.q}"}}', "${a.value}"
)
BROKEN = Rule(contains="polish", failure=Failure("EngineFailed", "secret"))
BREAKING = FakeScript(rules=[BROKEN, *RULES])


@pytest.fixture
async def desk(start: Start, one_store: Store) -> AsyncIterator[StartDesk]:
    async with desks(start, one_store) as start_one:
        yield start_one


def tokens_of(record: dict[str, Any]) -> int:
    tokens: int = record["usage"]["prompt_tokens"] + record["usage"]["completion_tokens"]
    return tokens


async def failed_run(at: Desk) -> str:
    run_id = await at.begin()
    await at.is_now(run_id, "failed")
    return run_id


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_events_are_told_from_any_number_on(desk: StartDesk) -> None:
    at = await desk()
    run_id = await at.begin()
    events = await at.events(run_id)
    assert types(events)[0] == "run_started"
    assert types(events)[-1] == "run_finished"
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert await at.events(run_id, after=3) == events[3:]
    assert await at.events(run_id, after=len(events)) == []
    answer = await at.site.http.get(f"/v1/runs/{run_id}/events?after=2")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("id: 3\n")


async def test_what_nodes_gave_is_not_read_for_events(
    desk: StartDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await desk()
    run_id = await at.begin()
    events = await at.events(run_id)
    monkeypatch.setattr(MemoryJournals, "read", None)
    assert await at.events(run_id, after=len(events) - 1) == events[-1:]


async def test_events_come_while_they_happen(desk: StartDesk) -> None:
    at = await desk(SLOW_END)
    run_id = await at.begin()
    seen: list[str] = []
    async with at.site.http.stream("GET", f"/v1/runs/{run_id}/events", timeout=120) as reply:
        async for line in reply.aiter_lines():
            if line.startswith("data: "):
                seen.append(msgspec.json.decode(line[6:])["type"])
                if seen[-1] == "node_called" and seen.count("node_called") == 2:
                    await at.post(run_id, "cancel")
    assert seen[-1] == "run_failed"


@pytest.mark.parametrize(
    ("query", "header", "param"),
    [
        ("?after=x", None, "after"),
        ("?after=-1", None, "after"),
        ("?after=", None, "after"),
        ("?aftr=1", None, "aftr"),
        ("", "soon", "last-event-id"),
    ],
)
async def test_wrong_numbers_are_named(desk: StartDesk, query: str, header: str | None, param: str) -> None:
    at = await desk()
    headers = {} if header is None else {"last-event-id": header}
    answer = await at.site.http.get(f"/v1/runs/r-1/events{query}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_run_that_keeps_nothing_says_what_would(desk: StartDesk) -> None:
    at = await desk()
    run_id = (await at.run()).json()["run_id"]
    await at.is_now(run_id, "succeeded")
    events = await at.site.http.get(f"/v1/runs/{run_id}/events")
    assert code(events) == (409, "events_not_kept")
    assert '"background": true' in events.json()["error"]["message"]
    outputs = await at.site.http.get(f"/v1/runs/{run_id}?outputs=true")
    assert code(outputs) == (409, "outputs_not_kept")
    background = (await at.run(background=True)).json()["run_id"]
    await at.is_now(background, "succeeded")
    for kept_not in (run_id, background):
        for action in ("resume", "fork"):
            answer = await at.post(kept_not, action)
            assert code(answer) == (409, "checkpoints_not_kept")
            assert '"durability": "step"' in answer.json()["error"]["message"]


async def test_others_runs_are_not_there(desk: StartDesk, keys: KeyStore) -> None:
    at = await desk(SLOW_END)
    run_id = await at.begin()
    rival, _ = await keys.create("rivals", "spy")
    narrow, _ = await keys.create("acme", "narrow", models=["graph/other"])
    for token in (rival, narrow):
        at.site.http.headers["authorization"] = f"Bearer {token}"
        answers = [
            await at.site.http.get(f"/v1/runs/{run_id}{path}") for path in ("", "/events", "?outputs=true")
        ]
        answers += [await at.post(run_id, action) for action in ("cancel", "resume", "fork")]
        assert [code(answer) for answer in answers] == [(404, "run_not_found")] * 6
    at.site.http.headers["authorization"] = f"Bearer {at.site.token}"
    assert (await at.look(run_id))["status"] == "running"
    for run in ("a:b", "r-9"):
        for action in ("resume", "fork"):
            assert (await at.post(run, action)).status_code in (400, 404)


async def test_a_failed_run_goes_on_where_it_was(desk: StartDesk) -> None:
    at = await desk(BREAKING)
    run_id = await failed_run(at)
    before = await at.site.settled()
    at.site.engine.script = QUICK
    number = (await at.events(run_id))[-1][0]
    answer = await at.post(run_id, "resume")
    assert answer.status_code == 202
    assert answer.json()["run_id"] == run_id
    record = await at.is_now(run_id, "succeeded")
    assert record["outputs"]["values"]["text"] == "polished at last"
    assert record["attempt"] == 2
    assert at.asked("draft of") == 1
    since = await at.events(run_id, after=number)
    assert (types(since)[0], since[0][1]["completed"]) == ("run_resumed", 1)
    after = await at.site.settled()
    usage = record["usage"]
    assert after.tokens == usage["prompt_tokens"] + usage["completion_tokens"]
    assert after.requests == before.requests + 1


async def test_a_cancelled_run_goes_on_and_can_be_streamed(desk: StartDesk) -> None:
    at = await desk(SLOW_END)
    run_id = await at.begin()
    await at.at_work()
    await at.post(run_id, "cancel")
    await at.is_now(run_id, "cancelled")
    at.site.engine.script = QUICK
    answer = await at.post(run_id, "resume", stream=True)
    told = [line for line in answer.text.splitlines() if line.startswith("event: ")]
    assert (told[0], told[-1]) == ("event: run_resumed", "event: run_finished")
    assert at.asked("draft of") == 1


async def test_what_cannot_be_resumed(desk: StartDesk) -> None:
    at = await desk(SLOW_END)
    run_id = await at.begin()
    assert code(await at.post(run_id, "resume")) == (409, "run_running")
    at.site.engine.script = QUICK
    done = await at.begin()
    await at.is_now(done, "succeeded")
    assert code(await at.post(done, "resume")) == (409, "run_succeeded")
    wrong = await at.post(done, "resume", deadline=3)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "deadline")
    assert (await at.post(run_id, "cancel")).json()["status"] == "cancelling"


async def test_a_fork_runs_only_what_follows(desk: StartDesk) -> None:
    at = await desk()
    run_id = await at.begin()
    await at.is_now(run_id, "succeeded")
    before = (await at.site.settled()).tokens
    body = {"from": "draft", "outputs": {"text": "edited"}}
    answer = await at.post(run_id, "fork", **body)
    assert answer.status_code == 200
    forked = answer.json()
    assert forked["run_id"] != run_id
    assert forked["outputs"] == {"draft": "edited", "text": "edited and polished"}
    assert (at.asked("draft of"), at.asked("polish edited")) == (1, 1)
    usage = forked["usage"]
    assert (await at.site.settled()).tokens - before == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (await at.look(run_id))["outputs"]["values"]["text"] == "polished at last"


async def test_a_replay_and_a_fork_with_other_inputs_run_anew(desk: StartDesk) -> None:
    at = await desk()
    run_id = await at.begin()
    await at.is_now(run_id, "succeeded")
    replayed = await at.post(run_id, "fork", background=True)
    assert replayed.status_code == 202
    await at.is_now(replayed.json()["run_id"], "succeeded")
    assert at.asked("draft of thanks") == 2
    other = await at.post(run_id, "fork", inputs={"topic": "hello"}, stream=True)
    assert "event: run_finished" in other.text
    assert (at.asked("draft of hello"), at.asked("draft of thanks")) == (1, 2)


async def test_a_fork_from_its_last_node_keeps_what_came_before(desk: StartDesk) -> None:
    at = await desk()
    run_id = await at.begin()
    await at.is_now(run_id, "succeeded")
    answer = await at.post(run_id, "fork", **{"from": "final"})
    assert answer.json()["outputs"]["text"] == "polished at last"
    assert (at.asked("draft of"), at.asked("polish")) == (1, 2)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"from": "drft"}, 422, "from"),
        ({"from": "draft", "outputs": {"txt": "x"}}, 422, "outputs.txt"),
        ({"from": "draft", "outputs": {"text": 3}}, 422, "outputs.text"),
        ({"outputs": {"text": "x"}}, 422, "from"),
        ({"inputs": {"topc": "x"}}, 422, "inputs.topc"),
        ({"form": "draft"}, 400, "form"),
    ],
)
async def test_wrong_forks_say_what_is_wrong(
    desk: StartDesk, body: dict[str, Any], status: int, param: str
) -> None:
    at = await desk()
    run_id = await at.begin()
    await at.is_now(run_id, "succeeded")
    answer = await at.post(run_id, "fork", **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_who_leaves_a_fork_that_is_waited_for_ends_it(desk: StartDesk) -> None:
    at = await desk()
    run_id = await at.begin()
    await at.is_now(run_id, "succeeded")
    at.site.engine.script = SLOW_END
    leaving = asyncio.create_task(at.post(run_id, "fork", **{"from": "final"}))
    await at.at_work()
    leaving.cancel()
    await asyncio.wait([leaving])

    async def ended() -> bool:
        runs = (await at.site.http.get("/v1/runs?status=cancelled")).json()["data"]
        return len(runs) == 1

    await eventually(ended)


async def test_to_fork_a_colleagues_pipeline_a_key_needs_its_permission(
    desk: StartDesk, keys: KeyStore
) -> None:
    at = await desk()
    plan = msgspec.structs.replace(compile_pipeline(load(SHOUT).pipeline), graph="inline/mine")
    run = RunRequest("run-9", plan.graph, {"q": "hi"}, 2e9, tenant="acme", durability="step")
    journal = await at.journals.begin(run, plan)
    await journal.append([RunStarted("run-9", plan.graph, "1", "h"), RunFinished({}, Usage(), 1.0)], [])
    refused = await at.post("run-9", "fork", inputs={"q": "mine"})
    assert code(refused) == (403, "permission_denied")
    allowed, _ = await keys.create("acme", "allowed", functions=True)
    at.site.http.headers["authorization"] = f"Bearer {allowed}"
    answer = await at.post("run-9", "fork", inputs={"q": "mine"})
    assert answer.json()["outputs"] == {"out": "MINE!"}


async def test_a_decision_resumes_a_suspended_run(desk: StartDesk) -> None:
    at = await desk()
    run_id = await at.begin(ask=True)
    record = await at.is_now(run_id, "suspended")
    assert types(await at.events(run_id))[-1] == "run_suspended"
    spent = (await at.site.settled()).tokens
    assert spent == tokens_of(record)
    decided = await at.site.http.post(f"/v1/runs/{run_id}/approvals/review", json={"approved": True})
    assert decided.json() == {
        "run_id": run_id,
        "node": "review",
        "status": "approved",
        "run_status": "running",
    }
    done = await at.is_now(run_id, "succeeded")
    assert at.asked("draft of") == 1
    assert (await at.site.settled()).tokens == tokens_of(done)


async def test_a_decision_without_quota_is_kept_until_the_run_is_resumed(desk: StartDesk) -> None:
    at = await desk(limits=Limits(requests_per_minute=1))
    run_id = await at.begin(ask=True)
    await at.is_now(run_id, "suspended")
    decided = await at.site.http.post(f"/v1/runs/{run_id}/approvals/review", json={"approved": True})
    assert (decided.status_code, decided.json()["run_status"]) == (200, "suspended")
    assert (await at.post(run_id, "resume")).status_code == 429
    assert (await at.look(run_id))["status"] == "suspended"


async def test_a_suspended_run_is_ended_on_request(desk: StartDesk) -> None:
    at = await desk()
    run_id = await at.begin(ask=True)
    await at.is_now(run_id, "suspended")
    assert (await at.post(run_id, "cancel")).json() == {"run_id": run_id, "status": "cancelled"}
    record = await at.look(run_id)
    assert (record["status"], record["error"]["kind"]) == ("cancelled", "RunCancelled")
    assert types(await at.events(run_id))[-1] == "run_failed"
    assert (await at.post(run_id, "cancel")).json()["status"] == "cancelled"


async def test_a_run_whose_runner_died_is_ended_on_request(
    desk: StartDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await desk(SLOW_END)
    monkeypatch.setattr(MemoryJournals, "abandoned", nobody)
    run_id = await at.begin()
    await at.at_work()
    for runner in at.runners:
        at.clock.kill(runner)

    async def ended() -> bool:
        return bool((await at.post(run_id, "cancel")).json()["status"] == "cancelled")

    await eventually(ended)
    assert types(await at.events(run_id))[-1] == "run_failed"


async def nobody(_: MemoryJournals) -> list[tuple[str, str]]:
    """No runner finds the run before it is cancelled."""
    return []


async def test_a_run_without_a_record_is_told_from_its_journal(desk: StartDesk, one_store: Store) -> None:
    at = await desk()
    run_id = await at.begin()
    whole = await at.is_now(run_id, "succeeded")
    await asyncio.gather(*(log.flush() for log in at.logs))
    assert await one_store.execute("DEL", f"cgh:{{acme}}:run:{run_id}") == 1
    told = await at.look(run_id)
    assert (told["status"], told["outputs"], told["usage"]) == ("succeeded", whole["outputs"], whole["usage"])
    assert {node["node"] for node in told["nodes"]} == {"draft", "review", "final"}


async def test_outputs_of_nodes_on_request(desk: StartDesk) -> None:
    at = await desk()
    run_id = await at.begin()
    await at.is_now(run_id, "succeeded")
    answer = await at.site.http.get(f"/v1/runs/{run_id}?outputs=true")
    shown = answer.json()["node_outputs"]
    assert shown["values"]["draft"]["text"] == "draft"
    assert shown["left_out"] == {}
    assert "node_outputs" not in (await at.look(run_id))
    wrong = await at.site.http.get(f"/v1/runs/{run_id}?outputs=yes")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "outputs")


async def test_runs_are_listed_by_their_status(desk: StartDesk) -> None:
    at = await desk(BREAKING)
    failed = await failed_run(at)
    at.site.engine.script = QUICK
    good = await at.begin()
    await at.is_now(good, "succeeded")
    for status, run_id in (("failed", failed), ("succeeded", good)):

        async def found(status: str = status, run_id: str = run_id) -> bool:
            answer = await at.site.http.get(f"/v1/runs?status={status}&graph=letter")
            return [run["run_id"] for run in answer.json()["data"]] == [run_id]

        await eventually(found)
    wrong = await at.site.http.get("/v1/runs?status=done")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "status")


async def test_the_routes_take_one_method_each(desk: StartDesk) -> None:
    at = await desk()
    for path, method, other in (
        ("events", "GET", "POST"),
        ("resume", "POST", "GET"),
        ("fork", "POST", "GET"),
    ):
        answer = await at.site.http.request(other, f"/v1/runs/r-1/{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, method)


async def test_the_document_tells_of_all_of_it(desk: StartDesk) -> None:
    paths = (await (await desk()).site.http.get("/openapi.json")).json()["paths"]
    assert paths["/v1/runs/{run_id}/events"]["get"]["parameters"][0]["name"] == "after"
    for path in ("/v1/graphs/{name}/runs", "/v1/runs/{run_id}/resume", "/v1/runs/{run_id}/fork"):
        assert "Location" in paths[path]["post"]["responses"]["202"]["headers"]
