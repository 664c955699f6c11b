"""Models and the runner come and go together, on scripted engines and a real Ray Serve.

What the policy decides stands in the log of Serve's controller, a line for each decision that changes
anything; so what was decided together is read there, however slow the machine is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import ray
import yaml
from ray import serve
from ray.serve import context as serve_context
from ray.serve.schema import ServeDeploySchema

from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyStore
from serve_apps.manifests.serve_config import APPLICATION, serve_config
from serve_apps.pipelines import load_plans
from serve_apps.scaling import scaling_of
from serve_apps.settings import load_settings
from tests.local_ray import shut_down

PORT = 8079
PATIENCE_S = 600.0
SCALED = ("runner", "model-writer", "model-checker")
CONFIG = {
    "models": [
        {
            "name": name,
            "engine": "fake",
            "replicas": {"min": 0, "max": 2, "at_once": 1},
            "script": {"token_s": token_s, "output_tokens": 10},
        }
        for name, token_s in (("writer", 0.8), ("checker", 0.05))
    ],
    "runner": {"replicas": {"min": 0, "max": 1}, "num_cpus": 0.1},
    "gateway": {"num_cpus": 0.1},
    "autoscaling": {"wait": "20s", "down_after": "3s", "zero_after": "8s"},
    "graphs": ["checked.yaml"],
    "store": {"timeout_s": 5},
}
GRAPH = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: checked, version: 1.0.0}
inputs: {topic: {type: string}}
nodes:
  write: {llm: {model: writer, max_tokens: 16}, with: {prompt: "${inputs.topic}"}}
  check: {llm: {model: checker, max_tokens: 16}, with: {prompt: "${write.text}"}}
outputs: {verdict: "${check.text}"}
"""

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Deployed:
    """The application, and what its policy has decided so far."""

    def __init__(self, logs: Path, key: str) -> None:
        self._logs = logs
        headers = {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{PORT}", headers=headers, timeout=PATIENCE_S)
        self.close = self._client.close

    def run(self) -> httpx.Response:
        return self._client.post("/v1/graphs/checked/runs", json={"inputs": {"topic": "tea"}})

    def chat(self, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        return self._client.post("/v1/chat/completions", json=body)

    def decisions(self) -> list[str]:
        lines = [
            line for file in self._logs.glob("controller_*.log") for line in file.read_text().split("\n")
        ]
        return [line for line in lines if "Replicas of the application:" in line]

    def running(self) -> dict[str, int]:
        deployments = serve.status().applications[APPLICATION].deployments
        return {name: deployments[name].replica_states.get("RUNNING", 0) for name in SCALED}


def until(happens: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.1)


def key_of(config: Path) -> str:
    async def make() -> str:
        settings = load_settings(config)
        store = Store.connect(EmbeddedValkey(settings.store_dir).url, timeout_s=5)
        try:
            keys = KeyStore(store, load_or_create_pepper(settings.pepper_file))
            return (await keys.create("acme", "test"))[0]
        finally:
            await store.close()

    return asyncio.run(make())


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    (tmp_path / "checked.yaml").write_text(GRAPH)
    config = tmp_path / "deploy.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"data_dir": str(tmp_path / "data")}))
    settings = load_settings(config)
    scaling = scaling_of(settings, load_plans(settings))
    told = serve_config(str(config), host="127.0.0.1", port=PORT, revision="1", scaling=scaling)
    started = ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options=told["http_options"])
        serve_context._get_global_client().deploy_apps(ServeDeploySchema.model_validate(told))
        until(lambda: serve.status().applications[APPLICATION].status == "RUNNING")
        made = Deployed(Path(started["session_dir"]) / "logs" / "serve", key_of(config))
        yield made
        made.close()
    finally:
        serve.shutdown()
        shut_down()
        EmbeddedValkey(settings.store_dir).stop()


def named_in(line: str, change: str) -> set[str]:
    return {name for name in SCALED if f"{name} {change}" in line}


def test_a_path_comes_grows_and_goes_together(deployed: Deployed) -> None:
    assert deployed.running() == dict.fromkeys(SCALED, 0)
    assert deployed.decisions() == []

    answer = deployed.run()
    assert answer.status_code == 200, answer.text
    woken = deployed.decisions()[0]
    assert named_in(woken, "from 0 to 1") == set(SCALED), woken

    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: deployed.run().status_code, range(16)))
    assert answers == [200] * 16
    grown = [line for line in deployed.decisions() if named_in(line, "from 1 to 2")]
    assert {"model-writer", "model-checker"} == {
        name for line in grown for name in named_in(line, "from 1 to 2")
    }
    # The second model grows for runs that are on their way, and not for a queue of its own.
    of_checker = next(line for line in grown if "model-checker from 1" in line).split("model-checker from 1")[
        1
    ]
    assert "and 0 that wait" in of_checker.split(";")[0], grown

    until(lambda: any("nothing came" in line for line in deployed.decisions()))
    gone = next(line for line in deployed.decisions() if "nothing came" in line)
    assert named_in(gone, "from 1 to 0") | named_in(gone, "from 2 to 0") == set(SCALED), deployed.decisions()
    until(lambda: deployed.running() == dict.fromkeys(SCALED, 0))

    before = len(deployed.decisions())
    answer = deployed.chat("checker")
    assert answer.status_code == 200, answer.text
    (again, *_) = deployed.decisions()[before:]
    assert named_in(again, "from 0 to 1") == {"model-checker"}, again
