"""Pipelines that come with a call: run like deployed ones, within what their key may do, or refused."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
import yaml

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.errors import Overloaded
from graphs.known import Known
from graphs.loader import load
from graphs.prompts import Prompts, PromptVersion
from runtime.compiler.catalog import Catalog, IndexInfo
from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from serve_apps.gateway import inline as inline_module
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.errors import InvalidPipeline
from serve_apps.gateway.inline import MAX_AT_ONCE, Deployed, InlinePipelines
from serve_apps.gateway.limits import Limits
from tests.runtime.parts import Shelf
from tests.serve_apps.api.inline_attacks import ATTACKS, HEAD, with_nodes
from tests.serve_apps.api.test_graphs import PIPELINE, InProcess, events_of
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, embed_pool

ASK = (
    HEAD
    + """\
nodes:
  ask: {prompt: {template: "Say {{ q }}"}, with: {q: "${inputs.q}"}}
  say: {llm: {model: tiny-chat, max_tokens: 20, max_prompt_tokens: 100}, with: {prompt: "${ask.text}"}}
outputs: {text: "${say.text}"}
"""
)
USES_HELPER = (
    HEAD
    + """\
context: {reads: [sessionHistory]}
nodes: {ask: {subgraph: {graph: helper}, with: {question: "${inputs.q}"}}}
outputs: {text: "${ask.text}"}
"""
)


FUNCTION = with_nodes(
    '  a: {function: "tests.graphs.sample_functions:shout", with: {text: "${inputs.q}"}}', "${a.value}"
)
HTTP = with_nodes(
    '  a: {http: {url: "https://api.example.com/x"}, with: {query: {q: "${inputs.q}"}}}', "${a.body}"
)
SECRET = with_nodes(
    '  a: {http: {url: "https://api.example.com/x", headers: {authorization: {env: TOKEN}}}}', "${a.body}"
)
TOOL = with_nodes('  a: {tool: {server: tickets, tool: find}, with: {q: "${inputs.q}"}}', "${a.text}")
SEARCH = with_nodes(
    '  v: {embed: {model: tiny-embed, max_prompt_tokens: 100}, with: {text: "${inputs.q}"}}\n'
    '  a: {retrieve: {index: manual}, with: {embedding: "${v.embedding}"}}',
    "${a.documents}",
)
PROMPT_FILE = with_nodes('  a: {prompt: {use: prompts/greet}, with: {q: "${inputs.q}"}}')


def deployed(pools: Any, **known: Any) -> Deployed:
    catalog = Catalog(
        {name: pool.info for name, pool in pools.items()},
        {"manual": IndexInfo("manual", EMBED)},
        hosts=frozenset({"api.example.com"}),
        secrets=frozenset({"TOKEN"}),
        servers=frozenset({"tickets"}),
    )
    prompts = Prompts([PromptVersion("greet", "1", "Hello {{ q }}", ("stable",))])
    helper = load(PIPELINE).pipeline
    return Deployed(
        catalog, Known({"helper": helper}, prompts, modules=("tests.graphs.sample_functions",), **known)
    )


async def start_inline(start: Start, script: FakeScript | None = None, **options: Any) -> Site:
    engine = FakeEngine(script or FakeScript(rules=[Rule(contains="", reply="yes it is")]))
    pools = {CHAT: chat_pool(engine), EMBED: embed_pool(engine)}
    known = deployed(pools)
    plan = compile_pipeline(load(PIPELINE).pipeline, known.catalog)
    runner = Runner([plan], Resources(pools, {"manual": Shelf()}))
    site = await start(
        pools=pools, graphs=runner.infos, runner=InProcess(runner), inline=InlinePipelines(known), **options
    )
    site.engine = engine
    return site


async def run(site: Site, pipeline: Any, **fields: Any) -> httpx.Response:
    return await site.http.post("/v1/runs", json={"pipeline": pipeline, "inputs": {"q": "hi"}, **fields})


def problems(answer: httpx.Response) -> list[dict[str, Any]]:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_pipeline", "pipeline")
    found: list[dict[str, Any]] = error["problems"]
    return [each for each in found if each.get("severity", "error") == "error"]


@pytest.mark.parametrize("as_object", [False, True])
async def test_a_pipeline_runs(start: Start, as_object: bool) -> None:
    site = await start_inline(start)
    answer = await run(site, yaml.safe_load(ASK) if as_object else ASK)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["graph"], body["version"], body["outputs"]) == (
        "inline/mine",
        "0.1.0",
        {"text": "yes it is"},
    )
    totals = await site.settled()
    assert totals.tokens == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0


async def test_a_pipeline_streams(start: Start) -> None:
    site = await start_inline(start)
    events = events_of((await run(site, ASK, stream=True)).text)
    assert (events[0][0], events[0][1]["graph"]) == ("run_started", "inline/mine")
    assert events[-1][1]["outputs"] == {"text": "yes it is"}


async def test_inputs_are_checked_against_the_pipeline(start: Start) -> None:
    site = await start_inline(start)
    answer = await run(site, ASK, inputs={"question": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "inputs.q")


async def test_all_problems_are_told_at_once_with_their_places(start: Start) -> None:
    site = await start_inline(start)
    broken = ASK.replace("${ask.text}", "${aks.text}").replace("tiny-chat", "tiny-chat, max_tokns: 3")
    found = problems(await run(site, broken))
    assert [(each["code"], each["position"]["line"], each["position"]["column"]) for each in found] == [
        ("unknown-field", 7, 33),
        ("unknown-node", 7, 103),
    ]
    assert found[1]["hint"] == "did you mean ask?"
    (unknown,) = problems(await run(site, ASK.replace("tiny-chat", "tiny-cat")))
    assert (unknown["code"], unknown["path"]) == ("unknown-model", ["nodes", "say", "llm", "model"])
    assert (unknown["position"]["line"], unknown["hint"]) == (7, "did you mean tiny-chat?")


async def test_an_object_has_no_lines(start: Start) -> None:
    site = await start_inline(start)
    (found,) = problems(await run(site, yaml.safe_load(ASK.replace("tiny-chat", "tiny-cat"))))
    assert found["path"] == ["nodes", "say", "llm", "model"]
    assert "position" not in found or found["position"] is None


async def test_a_deployed_graph_can_be_used_as_a_subgraph(start: Start) -> None:
    site = await start_inline(start)
    for use in ("helper", "helper@1.2.0"):
        answer = await run(site, USES_HELPER.replace("graph: helper", f"graph: {use}"))
        assert answer.json().get("outputs") == {"text": "yes it is"}, answer.text


async def test_the_quota_is_reserved_as_for_other_runs(start: Start) -> None:
    site = await start_inline(start, limits=Limits(tokens_per_minute=119))
    assert (await run(site, ASK)).status_code == 429  # 100 of the prompt and 20 of the answer
    assert (await run(site, ASK, token_budget=110)).status_code == 200


@pytest.mark.parametrize(
    ("pipeline", "code", "message"),
    [
        (FUNCTION, "bad-function", "functions of tests.graphs.sample_functions may not be named here"),
        (HTTP, "not-allowed", "this API key's own pipelines may not use web servers"),
        (SECRET, "not-allowed", "this API key's own pipelines may not use web servers"),
        (TOOL, "not-allowed", "this API key's own pipelines may not use MCP servers"),
        (PROMPT_FILE, "unknown-prompt", "there is no prompt greet"),
    ],
)
async def test_what_reaches_out_of_the_graph_needs_a_permission(
    start: Start, pipeline: str, code: str, message: str
) -> None:
    site = await start_inline(start)
    found = problems(await run(site, pipeline))
    assert (found[0]["code"], found[0]["message"]) == (code, message)


async def test_a_key_with_the_permission_runs_functions_of_the_modules_that_are_listed(start: Start) -> None:
    site = await start_inline(start, functions=True)
    assert (await run(site, FUNCTION)).json()["outputs"] == {"out": "HI!"}
    other = FUNCTION.replace("tests.graphs.sample_functions", "os")
    assert problems(await run(site, other))[0]["message"] == "functions of os may not be named here"
    assert (await run(site, PROMPT_FILE)).json()["outputs"] == {"out": "Hello hi"}
    unlisted = HTTP.replace("api.example.com", "evil.example.com")
    assert problems(await run(site, unlisted))[0]["code"] == "unknown-host"


async def test_a_key_uses_only_models_indexes_and_graphs_of_its_list(start: Start) -> None:
    site = await start_inline(start, models=[EMBED])
    (found,) = problems(await run(site, ASK))
    assert found["message"] == "there is no model tiny-chat that this API key may use"
    assert "tiny-chat" not in found.get("hint", "")
    assert problems(await run(site, USES_HELPER))[0]["code"] == "unknown-graph"
    assert (
        problems(await run(site, SEARCH))[0]["message"]
        == "there is no index manual that this API key may use"
    )
    allowed = await start_inline(start, models=[EMBED, "index/manual", "graph/helper"])
    searched = await run(allowed, SEARCH)
    assert searched.status_code == 200, searched.text
    used = await run(allowed, USES_HELPER)
    assert used.status_code == 200, used.text


async def test_a_run_cannot_be_taken_for_one_of_a_deployed_graph(start: Start) -> None:
    site = await start_inline(start, models=[CHAT])
    body = (await run(site, ASK.replace("name: mine", "name: helper"))).json()
    assert body["graph"] == f"inline/helper/{site.key.key_id}"
    assert (await site.http.get("/v1/graphs/inline%2Fhelper")).status_code == 404


async def test_what_is_compiled_for_one_key_is_not_another_ones() -> None:
    engine = FakeEngine(FakeScript())
    inline = InlinePipelines(deployed({CHAT: chat_pool(engine), EMBED: embed_pool(engine)}))
    free = Caller("acme", "k1")
    first = await inline.compiled(free, ASK)
    assert await inline.compiled(free, ASK) is first
    assert await inline.compiled(Caller("acme", "k2"), ASK) is first
    assert await inline.compiled(Caller("other", "k1"), ASK) is not first
    listed = await inline.compiled(Caller("acme", "k3", models=[CHAT]), ASK)
    assert listed.info.name == "inline/mine/k3"
    inline.close()


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks_are_refused_by_name(start: Start, attack: str) -> None:
    site = await start_inline(start)
    text, word = ATTACKS[attack]
    began = time.monotonic()
    found = problems(await run(site, text))
    assert time.monotonic() - began < 100  # a second, on a machine that does nothing else
    assert any(word in each["message"] for each in found), found[:3]
    assert (await site.totals()).open == 0


async def test_what_takes_too_long_to_compile_is_refused_and_so_are_too_many(monkeypatch) -> None:
    engine, held = FakeEngine(FakeScript()), threading.Event()

    def slow(*_: object) -> None:
        held.wait(30)

    monkeypatch.setattr(inline_module, "compile_inline", slow)
    inline = InlinePipelines(deployed({CHAT: chat_pool(engine)}), compile_s=1.0)
    key = Caller("acme", "k1")
    several = [inline.compiled(key, f"x: {number}") for number in range(MAX_AT_ONCE + 1)]
    ended = await asyncio.gather(*several, return_exceptions=True)
    held.set()
    kinds = [type(each) for each in ended]
    assert kinds == [InvalidPipeline] + [Overloaded] * MAX_AT_ONCE
    assert str(ended[0]) == "The pipeline cannot be run: it takes longer than 1 s to compile."
    inline.close()
