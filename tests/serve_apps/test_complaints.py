"""What users of other gateways complain of, tried on every route that spends tokens.

What is not here is tried where its part is, in these files of `tests`:

    budgets overshoot, per replica too              gateway/test_quotas, test_quota_machine; chaos row 3
    reservations leak, counters stay up             here; gateway/test_quota_orphans, test_gateway_killed
    guardrails are skipped on `/v1/messages`        test_guarded
    caches are shared between tenants               here; test_cross_tenant; gateway/test_idempotency
    an unreachable store hangs or loosens all       gateway/test_store_out, test_local_share; chaos row 5
    key updates are undone by writes in flight      gateway/test_keys, test_refreshing
    memory grows, and labels of metrics             test_growth, test_metrics, cli/test_haproxy; chaos row 9
    a barrier makes a fast branch wait              runtime/executor/test_loop
    cancelling does not reach subgraphs             runtime/executor/kinds/test_subgraph
    checkpoints grow without bound                  runtime/durability/test_bounds
    time travel restarts a subgraph                 runtime/durability/test_forking
    a join fires several times                      runtime/executor/test_random
    only async nodes have time-outs                 runtime/executor/kinds/test_function
    a generator cannot be composed                  runtime/executor/test_streams, test_live
    nobody has to say who they are                  gateway/test_attacks; chaos row 15
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.interface import Batch, Pool
from cluster.messages import Delta, Failure, Finish, Generate, Usage
from serve_apps.gateway.app import HOT_ROUTES
from serve_apps.gateway.limits import Limits
from tests.serve_apps.api.test_graphs import start_helper
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, embed_pool, eventually

Body = Callable[..., dict[str, Any]]


def _chat(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": CHAT, "messages": [{"role": "user", "content": text}], **fields}


def _completion(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": CHAT, "prompt": text, **fields}


def _response(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": CHAT, "input": text, **fields}


def _message(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": CHAT, "max_tokens": 32, "messages": [{"role": "user", "content": text}], **fields}


DIALECTS: dict[str, Body] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/responses": _response,
    "/v1/messages": _message,
}
CLEAN_ENDS = ("[DONE]", "response.completed", "message_stop")
of_every_dialect = pytest.mark.parametrize("path", DIALECTS)


class Upstream(FakeEngine):
    """An engine that says what it is told to, and remembers its calls."""

    def __init__(self, *batches: Batch, hold: asyncio.Event | None = None) -> None:
        super().__init__()
        self._batches = batches
        self._hold = hold
        """Is waited for after the first batch."""
        self.calls: list[Generate] = []
        self.running = 0

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        self.calls.append(call)
        self.running += 1
        try:
            for number, batch in enumerate(self._batches):
                if number == 1 and self._hold is not None:
                    await self._hold.wait()
                yield batch
        finally:
            self.running -= 1

    def pools(self) -> dict[str, Pool]:
        return {CHAT: chat_pool(self), EMBED: embed_pool(self)}


WHOLE: list[Batch] = [[Delta("one")], [Delta(" two"), Finish("stop"), Usage(10, 2, 8)]]


@of_every_dialect
@pytest.mark.parametrize("said", [1, 2], ids=["without a finish", "without a usage"])
async def test_an_upstream_cut_is_no_clean_end(start: Start, path: str, said: int) -> None:
    """It ends without an error of its own, as a connection does that is closed in order."""
    upstream = Upstream(*([Delta("one")], [Delta(" two"), Finish("stop")])[:said])
    site = await start(pools=upstream.pools())
    answer = await site.http.post(path, json=DIALECTS[path](stream=True))
    assert answer.status_code == 200
    assert "one" in answer.text
    assert not any(end in answer.text for end in CLEAN_ENDS)
    assert "error" in answer.text.rstrip().split("\n\n")[-1]
    assert (await site.http.post(path, json=DIALECTS[path]())).status_code == 503


@of_every_dialect
async def test_an_error_in_mid_stream_is_not_retried_and_duplicates_no_text(start: Start, path: str) -> None:
    rule = Rule(contains="break", reply="one two", failure=Failure("ReplicaLost", ""), failure_after=1)
    site = await start(FakeScript(rules=[rule]))
    answer = await site.http.post(path, json=DIALECTS[path]("break", stream=True))
    assert not any(end in answer.text for end in CLEAN_ENDS)
    deltas = [line for line in answer.text.split("\n") if line.startswith("data: ") and "error" not in line]
    assert sum("one" in line for line in deltas) == 1
    status = await site.engine.status()
    assert status.completed + status.aborted == 1


@of_every_dialect
async def test_a_disconnected_stream_is_billed_and_frees_its_slot(start: Start, path: str) -> None:
    upstream = Upstream(*WHOLE, hold=asyncio.Event())
    site = await start(pools=upstream.pools(), limits=Limits(concurrent_requests=1))
    async with site.http.stream("POST", path, json=DIALECTS[path]("a b c", stream=True)) as answer:
        async for line in answer.aiter_lines():
            if "one" in line:
                break

    async def left() -> bool:
        return upstream.running == 0

    await eventually(left)
    totals = await site.settled()
    assert (totals.tokens, totals.reserved, totals.open) == (3 + 1, 0, 0)


@of_every_dialect
async def test_streams_are_not_buffered(start: Start, path: str) -> None:
    """The first token is there while the engine still has the second to say."""
    go_on = asyncio.Event()
    upstream = Upstream(*WHOLE, hold=go_on)
    site = await start(pools=upstream.pools())
    async with site.http.stream("POST", path, json=DIALECTS[path](stream=True)) as answer:
        lines = answer.aiter_lines()
        while "one" not in await anext(lines):
            assert upstream.running == 1
        go_on.set()
        rest = [line async for line in lines]
    assert any("two" in line for line in rest)


@of_every_dialect
async def test_cached_tokens_are_counted_once(start: Start, path: str) -> None:
    site = await start(pools=Upstream(*WHOLE).pools())
    answer = await site.http.post(path, json=DIALECTS[path](stream=True))
    assert answer.status_code == 200
    assert (await site.settled()).tokens == 10 + 2


SPENDERS = {
    **{path: body() for path, body in DIALECTS.items()},
    "/v1/embeddings": {"model": EMBED, "input": "Hello"},
    "/v1/graphs/helper/runs": {"inputs": {"question": "Why?"}},
    "/ai/kind-answers": {"question": "Why?"},
}
ALSO_BOUNDED = {
    "/v1/runs": "api/test_inline",
    "/v1/runs/*/resume": "api/test_run_actions",
    "/v1/runs/*/fork": "api/test_run_actions",
}
"""Routes that spend, whose budgets are tried elsewhere: they need more than one call."""
FREE = {"/v1/messages/count_tokens", "/v1/tokenize", "/v1/detokenize", "/v1/runs/*/events"}
"""Routes that ask no engine."""


def test_every_route_is_known_to_spend_or_not() -> None:
    """A route that passes calls on and is in none of these lists would skip the budgets unseen."""
    tried = {re.sub("/(helper|kind-answers)(?=/|$)", "/*", path) for path in SPENDERS}
    assert tried | set(ALSO_BOUNDED) | FREE == set(HOT_ROUTES)


@pytest.mark.parametrize("path", SPENDERS)
async def test_no_route_skips_the_budget(start: Start, path: str) -> None:
    site = await start_helper(start, limits=Limits(tokens_per_minute=1), tasks={"kind-answers": "helper"})
    body = SPENDERS[path] if path != "/v1/embeddings" else {"model": EMBED, "input": "two words"}
    if path in DIALECTS:
        body = DIALECTS[path]("two words")
    answer = await site.http.post(path, json=body)
    assert answer.status_code == 429, answer.text
    status = await site.engine.status()
    assert (status.completed, status.aborted) == (0, 0)


@pytest.mark.parametrize("path", SPENDERS)
async def test_a_refusal_leaks_no_reservation(start: Start, path: str) -> None:
    site = await start_helper(start, limits=Limits(requests_per_minute=2), tasks={"kind-answers": "helper"})
    statuses = [(await site.http.post(path, json=SPENDERS[path])).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    totals = await site.settled()
    assert (totals.open, totals.reserved) == (0, 0)


async def test_the_counter_of_calls_in_flight_is_released_however_they_end(start: Start) -> None:
    rules = [
        Rule(contains="break", reply="one two", failure=Failure("EngineFailed", ""), failure_after=1),
        Rule(contains="wrong", failure=Failure("InvalidCall", "no")),
    ]
    site = await start(FakeScript(rules=rules), limits=Limits(concurrent_requests=1))
    endings = [
        *(_chat(text, stream=streamed) for text in ("break", "wrong", "Hello") for streamed in (False, True)),
        _chat("word " * 1_000),
        _chat(nonsense=1),
    ]
    for body in endings:
        await site.http.post("/v1/chat/completions", json=body)
        await site.settled()
    with pytest.raises(httpx.ReadTimeout):
        await _slow_call(start, site)
    assert (await site.chat()).status_code == 200


async def _slow_call(start: Start, site: Site) -> None:
    """One whose client gives up while it waits."""
    slow = FakeScript(first_token_s=60)
    site.engine.script = slow
    try:
        await site.http.post("/v1/chat/completions", json=_chat(), timeout=httpx.Timeout(60, read=1.0))
    finally:
        site.engine.script = FakeScript()
        await site.settled()


@of_every_dialect
async def test_a_clients_mistakes_trip_no_breaker(start: Start, path: str) -> None:
    site = await start(FakeScript(rules=[Rule(contains="wrong", failure=Failure("InvalidCall", "no"))]))
    for _ in range(30):
        answer = await site.http.post(path, json=DIALECTS[path]("wrong"))
        assert answer.status_code == 400
    assert (await site.http.post(path, json=DIALECTS[path]())).status_code == 200
    assert (await site.http.get("/readyz")).status_code == 200


@of_every_dialect
async def test_a_priority_is_not_a_clients_to_set(start: Start, path: str) -> None:
    upstream = Upstream(*WHOLE)
    site = await start(pools=upstream.pools())
    headers = {"x-vllm-priority": "-100", "x-priority": "-100"}
    assert (await site.http.post(path, json=DIALECTS[path](stream=True), headers=headers)).status_code == 200
    assert [call.priority for call in upstream.calls] == [0]
    for field in ("priority", "cache_salt", "request_id", "vllm_xargs", "guided_regex", "extra_body"):
        answer = await site.http.post(path, json=DIALECTS[path](**{field: 1}))
        assert answer.status_code == 400, field
        assert field in json.dumps(answer.json()["error"])
    assert len(upstream.calls) == 1


@of_every_dialect
async def test_tenants_share_no_prefix_cache(start: Start, path: str) -> None:
    """The tenant of a call is the salt of the engine's prefix cache."""
    upstream = Upstream(*WHOLE)
    site = await start(pools=upstream.pools())
    token, _ = await site.deps.keys.create("rival", "other")
    for headers in ({}, {"authorization": f"Bearer {token}"}):
        answer = await site.http.post(path, json=DIALECTS[path](stream=True), headers=headers)
        assert answer.status_code == 200
    assert [call.tenant for call in upstream.calls] == ["acme", "rival"]
