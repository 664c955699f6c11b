"""The cases of the graph benchmark over the scripted engine: all arms run, and come to the same outputs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.__main__ import run
from benchmarks.cases import CaseSample
from benchmarks.graphs import measure
from benchmarks.graphs.door import open_door
from benchmarks.graphs.door_client import Door
from benchmarks.graphs.session import nearest_rank
from benchmarks.graphs.texts import prompt_tokens, text_of
from benchmarks.nodes import durable, local
from benchmarks.nodes.measure import measure as measure_nodes
from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.interface import ModelInfo
from cluster.pools.local import LocalPool

POOL = LocalPool(ModelInfo("m", "generate", 4096, 64), FakeEngine(), FakeTokenCounter())


@pytest.fixture
def at_once(monkeypatch):
    """An engine and tools that answer at once: the arms still take every step."""
    monkeypatch.setattr(measure, "FAKE", FakeScript())
    monkeypatch.setattr(measure, "FAKE_UNIT_S", 0.001)


async def test_all_arms_of_all_cases_come_to_the_same_outputs(at_once):
    samples: list[CaseSample] = []
    cases = await measure.measure(fake=True, repeats=1, wanted=(), progress=samples.append)
    assert [case.name[:2] for case in cases] == ["B1", "B2", "B3", "B4", "B4", "B5", "B6", "B6", "B6", "P1"]
    assert {(case.name, arm.name) for case in cases for arm in case.arms} == {
        (sample.case, sample.arm) for sample in samples
    }
    ours = {sample.case: sample.figures for sample in samples if sample.arm == "ours"}
    assert ours["B1 map-reduce"]["calls"] == 9
    assert ours["B1 map-reduce"]["output_tokens"] == 8 * 48 + 64
    assert ours["B2 RAG"]["first_text_s"] <= ours["B2 RAG"]["latency_s"]
    assert ours["B6 killed"]["recomputed_calls"] == 0
    assert ours["B6 killed"]["calls"] == 7
    calls = {sample.arm: sample.figures["calls"] for sample in samples if sample.case == "P1 passes"}
    assert calls == {"ours": 15, "without prune": 16, "without dedupe": 16, "without order": 15}
    for case in cases:
        figures = {target.figure for target in case.targets} | set(case.shown)
        assert all(figures <= sample.figures.keys() for sample in samples if sample.case == case.name)


def test_the_command_measures_a_case_over_the_fake_engine(tmp_path: Path):
    app = typer.Typer()
    app.command()(run)
    out = tmp_path / "graphs.json"
    arguments = ["graphs", "--fake", "--case", "B3", "--repeats", "1", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = json.loads(out.read_text())
    assert written["fake"] is True
    assert {result["arm"] for result in written["results"]} >= {"asyncio", "ours"}
    assert "B3 uneven branches" in out.with_suffix(".md").read_text()
    assert out.with_suffix(".svg").read_text().startswith("<svg")


@pytest.mark.parametrize("tokens", [5, 64, 333])
def test_a_text_makes_the_prompt_as_long_as_is_asked(tokens):
    text = text_of(POOL, tokens, seed=1, system="be brief")
    assert prompt_tokens(POOL, text, "be brief") == tokens
    assert text == text_of(POOL, tokens, seed=1, system="be brief")
    assert text != text_of(POOL, tokens, seed=2, system="be brief")


def test_a_system_message_that_leaves_no_room_is_refused():
    with pytest.raises(ValueError, match="3 tokens"):
        text_of(POOL, 3, seed=1, system="one two three four")


@pytest.mark.parametrize(("share", "value"), [(0.5, 3), (0.95, 5), (0.0, 1), (1.0, 5)])
def test_nearest_rank(share, value):
    assert nearest_rank([5, 1, 4, 2, 3], share) == value


async def test_calls_of_a_visitor_that_leaves_are_cancelled(tmp_path: Path):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer(call):
        if call["prompt"] == "quick":
            return call["prompt"].upper()
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with open_door(tmp_path / "door", answer):
        door = await Door.enter(str(tmp_path / "door"))
        slow = asyncio.create_task(door.ask("t", "slow", 1))
        await begun.wait()
        assert await door.ask("t", "quick", 1) == "QUICK"
        await door.leave()
        await asyncio.wait_for(ended.wait(), 60)
        with pytest.raises(ConnectionError):
            await slow


async def test_nodes_of_both_kinds_are_timed_beside_their_raw_counterparts(monkeypatch):
    monkeypatch.setattr(local, "NODES", 10)
    monkeypatch.setattr(local, "TIMES", 2)
    monkeypatch.setattr(durable, "NODES", 5)
    monkeypatch.setattr(durable, "TIMES", 2)
    samples: list[CaseSample] = []
    await measure_nodes(fake=True, repeats=1, wanted=(), progress=samples.append)
    assert [(sample.case, sample.arm) for sample in samples] == [
        ("N1 inline", "raw"),
        ("N1 inline", "ours"),
        ("N2 task", "raw"),
        ("N2 task", "ours"),
        ("N6 fuse", "ours"),
        ("N6 fuse", "unfused"),
        ("N7 step", "none"),
        ("N7 step", "ours"),
    ]
    assert all(sample.figures["node_us"] > 0 for sample in samples)
