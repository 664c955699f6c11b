"""Several versions of one graph, as models and as REST endpoints."""

from __future__ import annotations

import openai
import pytest

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from graphs.loader import load
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from tests.serve_apps.api.test_graphs import PIPELINE, InProcess
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, embed_pool

VERSIONS = ("1.2.0", "1.10.0", "2.0.0-rc.1")


async def start_versions(start: Start, versions: tuple[str, ...] = VERSIONS, **options: object) -> Site:
    """Each version says its own number."""
    rules = [Rule(contains=f"v{version} kind", reply=f"I am {version}.") for version in VERSIONS]
    engine = FakeEngine(FakeScript(rules=rules))
    pools = {CHAT: chat_pool(engine), EMBED: embed_pool(engine)}
    catalog = Catalog(models={name: pool.info for name, pool in pools.items()}, indexes={})
    text_of = PIPELINE.replace("{{ tone }}", "vVERSION {{ tone }}").replace(
        "version: 1.2.0", "version: VERSION"
    )
    texts = [text_of.replace("VERSION", version) for version in versions]
    plans = [compile_pipeline(load(text).pipeline, catalog) for text in texts]
    runner = Runner(plans, Resources(pools))
    return await start(pools=pools, graphs=runner.infos, runner=InProcess(runner), **options)


async def said(site: Site, model: str) -> str | None:
    answer = await site.sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Who are you?"}]
    )
    assert answer.model == model
    return answer.choices[0].message.content


async def test_the_name_is_the_newest_version_and_each_has_its_own_name(start: Start) -> None:
    site = await start_versions(start)
    assert await said(site, "graph/helper") == "I am 1.10.0."
    for version in VERSIONS:
        assert await said(site, f"graph/helper@{version}") == f"I am {version}."
    listed = [model.id async for model in site.sdk.models.list() if model.id.startswith("graph/")]
    names = [f"graph/helper@{version}" for version in ("1.10.0", "1.2.0", "2.0.0-rc.1")]
    assert listed == ["graph/helper", *names]
    assert (await site.sdk.models.retrieve("graph/helper@1.2.0")).id == "graph/helper@1.2.0"


async def test_versions_have_endpoints_and_their_runs_are_of_the_graph(start: Start) -> None:
    site = await start_versions(start)
    found = (await site.http.get("/v1/graphs/helper@1.2.0")).json()
    assert (found["name"], found["version"], found["model"]) == ("helper", "1.2.0", "graph/helper@1.2.0")
    assert (await site.http.get("/v1/graphs/helper")).json()["version"] == "1.10.0"
    listed = (await site.http.get("/v1/graphs")).json()["data"]
    assert {graph["version"]: graph["model"] for graph in listed} == {
        "1.10.0": "graph/helper",
        "1.2.0": "graph/helper@1.2.0",
        "2.0.0-rc.1": "graph/helper@2.0.0-rc.1",
    }
    answer = await site.http.post("/v1/graphs/helper@2.0.0-rc.1/runs", json={"inputs": {"question": "Who?"}})
    body = answer.json()
    assert (body["graph"], body["version"]) == ("helper", "2.0.0-rc.1")
    assert body["outputs"] == {"text": "I am 2.0.0-rc.1."}


async def test_another_version_is_not_found_and_those_there_are_are_named(start: Start) -> None:
    site = await start_versions(start)
    with pytest.raises(openai.NotFoundError) as raised:
        await said(site, "graph/helper@3.0.0")
    assert raised.value.code == "version_not_found"
    assert "has no version '3.0.0'. There is graph/helper@1.10.0, graph/helper@1.2.0" in raised.value.message
    alone = await start_versions(start, ("1.2.0",))
    assert await said(alone, "graph/helper@1.2.0") == "I am 1.2.0."
    answer = await alone.http.post("/v1/graphs/helper@9/runs", json={"inputs": {"question": "x"}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "version_not_found")
    assert "There is graph/helper@1.2.0." in answer.json()["error"]["message"]


async def test_a_key_that_may_use_a_graph_may_use_its_versions(start: Start) -> None:
    site = await start_versions(start, models=["graph/helper"])
    assert await said(site, "graph/helper@1.2.0") == "I am 1.2.0."
    other = await start_versions(start, models=[CHAT, "graph/help"])
    for name in ("graph/helper@1.2.0", "graph/helper", "graph/helper@7"):
        with pytest.raises(openai.PermissionDeniedError):
            await said(other, name)
    assert not [model.id async for model in other.sdk.models.list() if model.id.startswith("graph/")]
