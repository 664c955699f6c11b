"""Graphs under the names of tasks."""

from __future__ import annotations

import pytest

from serve_apps.gateway.limits import Limits
from tests.serve_apps.api.test_graphs import start_helper
from tests.serve_apps.conftest import CHAT, Site, Start

TASKS = {"kind-answers": "helper"}


@pytest.fixture
async def helper(start: Start) -> Site:
    return await start_helper(start, tasks=TASKS)


async def test_a_task_is_its_graph(helper: Site) -> None:
    response = await helper.http.post("/ai/kind-answers", json={"question": "may I?"})
    assert response.status_code == 200
    answer = response.json()
    assert answer["outputs"] == {"text": "In a kind way: yes."}
    assert (answer["graph"], answer["usage"]["completion_tokens"]) == ("helper", 5)
    assert (await helper.settled()).tokens == answer["usage"]["prompt_tokens"] + 5


async def test_tasks_are_listed(helper: Site) -> None:
    (task,) = (await helper.http.get("/ai")).json()["data"]
    assert (task["task"], task["graph"], task["description"]) == ("kind-answers", "helper", "Answers kindly")
    assert task["inputs"]["properties"]["question"]["maxLength"] == 60
    assert "text" in task["outputs"]["properties"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "says"),
    [
        ("/ai/kind-answer", {}, 404, "task_not_found", "Did you mean 'kind-answers'?"),
        ("/ai/kind-answers", {}, 422, "unprocessable", "question"),
        ("/ai/kind-answers", {"question": "x", "tune": 1}, 422, "unprocessable", "tune"),
        ("/ai/kind-answers", [1], 400, "invalid_value", "object"),
        ("/ai/a/b", {}, 404, "not_found", "No such route"),
    ],
)
async def test_refusals(helper: Site, path: str, body: object, status: int, code: str, says: str) -> None:
    response = await helper.http.post(path, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert says in error["message"]


async def test_a_key_for_other_graphs(start: Start) -> None:
    """It neither sees the task nor may use it, nor is it suggested."""
    site = await start_helper(start, tasks=TASKS, models=[CHAT])
    assert (await site.http.get("/ai")).json()["data"] == []
    assert (await site.http.post("/ai/kind-answers", json={"question": "x"})).status_code == 403
    assert "kind" not in (await site.http.post("/ai/kind-answer", json={})).json()["error"]["message"][24:]


async def test_limits_hold(start: Start) -> None:
    site = await start_helper(start, tasks=TASKS, limits=Limits(requests_per_minute=1))
    assert (await site.http.post("/ai/kind-answers", json={"question": "x"})).status_code == 200
    assert (await site.http.post("/ai/kind-answers", json={"question": "x"})).status_code == 429
    assert (await site.http.get("/ai/kind-answers")).status_code == 405
