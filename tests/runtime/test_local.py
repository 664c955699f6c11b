"""Graphs in a notebook: in three lines, with the fake or a remote model, without Ray."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.errors import ClusterError, ConfigError
from cluster.messages import Failure
from graphs.errors import PipelineError
from graphs.nodes.approval import Approval
from graphs.nodes.llm import Llm
from graphs.python import pipeline
from runtime.approvals.model import Decision
from runtime.events import NodeDelta, RunFinished
from runtime.local import TENANT, fake, local_runner, remote, run_locally

ECHO = FakeScript([Rule("why", "because it is so")])
YAML = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: outer, version: 1.0.0}
inputs: {question: string}
nodes:
  inner: {subgraph: {graph: ask}, with: {question: "${inputs.question}"}}
outputs: {text: "${inner.text}"}
"""


@pipeline(name="ask")
def ask(question: str):
    return {"text": Llm("small", max_tokens=16, stream=True)(prompt=question).named("answer").text}


def test_a_pipeline_runs_in_one_call() -> None:
    assert run_locally(ask, [fake("small", ECHO)], {"question": "why?"}) == {"text": "because it is so"}


async def test_it_runs_where_a_loop_runs_already() -> None:
    assert run_locally(ask, [fake("small", ECHO)], {"question": "why?"}) == {"text": "because it is so"}


async def test_text_and_files_may_use_pipelines_before_them(tmp_path: Path) -> None:
    file = tmp_path / "again.yaml"
    file.write_text(YAML.replace("name: outer", "name: again").replace("graph: ask", "graph: outer"))
    async with local_runner([ask, YAML, file], [fake("small", ECHO)]) as local:
        for graph in ("ask", "outer", "again"):
            assert await local.run(graph, {"question": "why?"}) == {"text": "because it is so"}


async def test_events_tell_what_happens_meanwhile() -> None:
    async with local_runner(ask, [fake("small", ECHO)]) as local:
        events = [event async for event in local.events("ask", {"question": "why?"}, stream=True)]
    text = "".join(event.text for event in events if isinstance(event, NodeDelta))
    assert text == "because it is so"
    assert isinstance(events[-1], RunFinished)


async def test_a_run_that_fails_raises_and_a_durable_one_can_be_resumed() -> None:
    broken = fake("small", FakeScript([Rule("why", failure=Failure("EngineFailed", "it broke"))]))
    async with local_runner(ask, [broken]) as local:
        with pytest.raises(ClusterError):
            await local.run("ask", {"question": "why?"}, run_id="run-1", durability="step")
        broken.engine.script = ECHO
        await local.runner.resume(TENANT, "run-1", time.time() + 60)
        heard = [event async for batch in local.journals.follow(TENANT, "run-1") for _, event in batch]
    assert isinstance(heard[-1], RunFinished)
    assert heard[-1].outputs == {"text": "because it is so"}


async def test_approvals_are_decided_in_the_same_process() -> None:
    @pipeline(name="review")
    def review(text: str):
        return {"text": Approval("May it?")(value=text).named("check").value}

    async with local_runner(review, []) as local:
        events = local.events("review", {"text": "draft"}, run_id="run-1")
        heard = []
        async for event in events:
            heard.append(event)
            if type(event).__name__ == "NodeWaiting":
                await local.approvals.decide(TENANT, "run-1", "check", Decision(True, value="final"))
    assert heard[-1].outputs == {"text": "final"}


async def test_problems_are_told_before_anything_runs() -> None:
    with pytest.raises(PipelineError, match="small"):
        async with local_runner(ask, [fake("large")]):
            pytest.fail("it has no model")
    async with local_runner(ask, [fake("small")]) as local:
        with pytest.raises(ClusterError, match="question"):
            await local.run("ask", {})


async def test_a_remote_model_is_named_by_its_endpoint(monkeypatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        remote("small", "https://api.example.com/v1", api_key_env="NO_SUCH_KEY")
    with pytest.raises(ValueError, match="base_url"):
        remote("small", "api.example.com")
    pool = remote("small", "http://127.0.0.1:9/v1", model="their-name")
    async with local_runner(ask, [pool]) as local:
        with pytest.raises(ClusterError):
            await local.run("ask", {"question": "why?"}, deadline=time.time() + 30)


def test_it_needs_no_ray() -> None:
    code = (
        "import runtime.local, sys; sys.exit(any(name in sys.modules for name in ('ray', 'vllm', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
