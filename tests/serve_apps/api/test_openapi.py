"""The OpenAPI document is true: what it describes is understood, and answered as it says.

schemathesis draws requests from the document, right ones and wrong ones, and compares the answers with it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.openapi.utils import get_openapi
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import BaseRoute

from runtime.store.client import Store
from serve_apps.api import documentation
from serve_apps.gateway.app import HOT_ROUTES, Front
from tests.serve_apps.api.durable import Desk, desks
from tests.serve_apps.conftest import CHAT, EMBED, Start

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 5
"""Of each route, right ones and as many wrong ones."""
CALL_TIMEOUT_S = 120.0
NOT_HERE = {"GET /v1/usage"}
"""Routes whose part is not deployed in this test."""


@pytest.fixture
async def desk(start: Start, one_store: Store) -> AsyncIterator[Desk]:
    async with desks(start, one_store) as start_one:
        yield await start_one()


async def _known(desk: Desk) -> dict[str, list[str]]:
    """Names that lead somewhere, for the parameters in paths."""
    kept = await desk.site.sdk.responses.create(model=CHAT, input="Hello")
    await desk.site.chat(contextId="talk")
    done, waiting = await desk.begin(), await desk.begin(ask=True)
    await desk.is_now(done, "succeeded")
    await desk.is_now(waiting, "suspended", "running")
    return {
        "model": [CHAT, "graph/letter"],
        "name": ["letter"],
        "run_id": [done, waiting],
        "node": ["review"],
        "context_id": ["talk"],
        "response_id": [kept.id],
    }


def _drawn(operation: Any, mode: GenerationMode) -> list[Case]:
    """Requests of a route: as the document says, or not quite."""
    cases: list[Case] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def draw(case: Case) -> None:
        cases.append(case)

    try:
        draw()
    except Unsatisfiable:  # nothing can be wrong with a route that takes nothing
        assert not cases
    return cases


def _pointed(case: Case, known: dict[str, list[str]], number: int) -> Case:
    """Every second of the cases with names that exist: without, none would come far."""
    if number % 2:
        for name in set(case.path_parameters or {}) & set(known):
            case.path_parameters[name] = known[name][number // 2 % len(known[name])]
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = (CHAT, EMBED, "graph/letter")[number // 2 % 3]
    return case


async def _answered(desk: Desk, case: Case) -> httpx.Response:
    headers = {"authorization": f"Bearer {desk.site.token}", "x-request-timeout": "5"}
    sent = case.as_transport_kwargs(base_url=desk.site.url, headers=headers)
    sent.pop("cookies", None)
    if "data" in sent:  # as requests calls it
        sent["content"] = sent.pop("data")
    return await desk.site.http.request(**sent, timeout=CALL_TIMEOUT_S)


@pytest.mark.timeout(1800)
async def test_what_the_document_says_is_so(desk: Desk) -> None:
    document = (await desk.site.http.get("/openapi.json")).json()
    wrong, statuses = [], defaultdict[str, set[int]](set)
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        known = await _known(desk)
        cases = [case for mode in GenerationMode for case in _drawn(operation, mode)]
        for number, case in enumerate(cases):
            answer = await _answered(desk, _pointed(case, known, number))
            statuses[operation.label].add(answer.status_code)
            if answer.status_code == 503 and operation.label in NOT_HERE:
                continue
            try:
                case.validate_response(answer, checks=CHECKS)
            except FailureGroup as failures:
                wrong += [f"{operation.label}: {failure}" for failure in failures.exceptions]
    assert wrong == []
    reads = {label for label in statuses if label.startswith("GET") and "/admin/" not in label}
    unseen = {label for label in reads if 200 not in statuses[label]}
    assert unseen <= NOT_HERE, "without good answers nothing is known of their shape"


def _bodies(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in content:
                assert method == "post"
                yield path, content["example"]


async def test_the_examples_work(desk: Desk) -> None:
    """With the names that there are here in place of those of the quickstart."""
    document = (await desk.site.http.get("/openapi.json")).json()
    described = schemathesis.openapi.from_dict(document)
    tried = set()
    for path, example in _bodies(document):
        if "{" in path.replace("{name}", ""):
            continue
        body = json.dumps(example).replace("smollm2", CHAT).replace("minilm", EMBED)
        if path == "/v1/graphs/{name}/runs":
            body = body.replace("question", "topic")
        answer = await desk.site.http.post(
            path.replace("{name}", "letter"), content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200, (path, answer.text)
        described[path]["POST"].validate_response(answer)
        tried.add(path)
    assert tried >= {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/graphs/{name}/runs",
        "/v1/runs",
    }


async def test_a_task_is_described_by_its_inputs_and_outputs(desk: Desk) -> None:
    document = (await desk.site.http.get("/openapi.json")).json()
    letters = document["paths"]["/ai/letters"]["post"]
    inputs = letters["requestBody"]["content"]["application/json"]["schema"]
    assert (inputs["properties"]["topic"]["type"], inputs["required"]) == ("string", ["topic"])
    answer, outputs = letters["responses"]["200"]["content"]["application/json"]["schema"]["allOf"]
    assert answer["$ref"].endswith("/RunAnswer")
    assert set(outputs["properties"]["outputs"]["properties"]) == {"draft", "text"}
    assert "/ai/{task}" not in document["paths"]


async def test_tasks_are_described_to_whoever_may_use_them(desk: Desk) -> None:
    url, keys = desk.site.url, desk.site.deps.keys
    narrow = {
        "of other models": {"models": [CHAT]},
        "of other endpoints": {"endpoints": ["/v1/chat/*"]},
    }
    shown = [(await keys.create("acme", name, **fields))[0] for name, fields in narrow.items()]
    async with httpx.AsyncClient(base_url=url) as http:
        told = [await http.get("/openapi.json")]
        told += [await http.get("/openapi.json", headers={"x-api-key": key}) for key in shown]
        refused = await http.get("/openapi.json", headers={"authorization": "Bearer cgh_none"})
    assert [answer.status_code for answer in told] == [200, 200, 200]
    assert not any("letters" in answer.text for answer in told)
    assert all("/ai/{task}" in answer.json()["paths"] for answer in told)
    assert refused.status_code == 401


async def test_models_are_described_in_both_dialects(desk: Desk) -> None:
    paths = (await desk.site.http.get("/openapi.json")).json()["paths"]
    for path, kinds in (
        ("/v1/models", ["ModelList", "AnthropicModelPage"]),
        ("/v1/models/{model}", ["ModelObject", "AnthropicModel"]),
    ):
        operation = paths[path]["get"]
        shapes = operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
        assert [shape["$ref"].rpartition("/")[2] for shape in shapes] == kinds
        assert "anthropic-version" in [parameter["name"] for parameter in operation["parameters"]]


async def test_every_route_is_in_a_group_and_says_what_it_is_for(desk: Desk) -> None:
    document = (await desk.site.http.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert set(operation["tags"]) <= set(documentation.TAGS), (method, path)
            assert operation["summary"], (method, path)


def _routes(desk: Desk) -> list[BaseRoute]:
    app = desk.site.app
    assert isinstance(app, Front)
    return app.api.routes


async def test_every_route_is_described(desk: Desk) -> None:
    for path, methods in get_openapi(title="", version="", routes=_routes(desk)).get("paths", {}).items():
        for method in methods:
            assert (path, method) in documentation.ROUTES, "describe it in documentation.py"
    for path, route in HOT_ROUTES.items():
        described = {re.sub(r"\{\w+\}", "*", known): method for known, method in documentation.ROUTES}
        assert path in described, (path, route.method)
