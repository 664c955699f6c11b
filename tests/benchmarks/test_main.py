"""The command refuses names it does not know, and writes what it measured."""

from __future__ import annotations

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks.growth_report import GrowthReport
from benchmarks.report import Report
from benchmarks.runner import Sample
from benchmarks.scenarios import GROWTH, SCENARIOS
from benchmarks.scenarios.compile import CompileScenario
from benchmarks.scenarios.gateway import CONFIG
from runtime.store.embedded import EmbeddedValkey


@pytest.fixture
def invoke():
    app = typer.Typer()
    app.command()(command.run)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_an_unknown_scenario_is_refused_with_the_known_ones(invoke):
    result = invoke("no-such")
    assert result.exit_code == 2
    assert "gateway" in result.output


def test_an_unknown_arm_is_refused_with_the_known_ones(invoke):
    result = invoke("gateway", "--arm", "no-such")
    assert result.exit_code == 2
    assert "upstream" in result.output


def test_one_arm_is_measured_and_written(invoke, tmp_path):
    out = tmp_path / "deep" / "gateway.json"
    result = invoke("gateway", "--arm", "upstream", "--repeats", "1", "--seconds", "0.2", "--out", str(out))
    assert result.exit_code == 0, result.output
    written = msgspec.json.decode(out.read_bytes(), type=Report)
    assert [(sample.load, sample.arm) for sample in written.samples] == [
        ("chat", "upstream"),
        ("stream", "upstream"),
        ("stream alone", "upstream"),
    ]
    # The system counts CPU in hundredths of a second: one load alone may come to none of them.
    assert sum(sample.cpu_ms_per_request for sample in written.samples) > 0


@pytest.mark.parametrize("kind", SCENARIOS.values())
def test_every_scenario_has_its_baseline_among_its_arms(kind):
    assert kind.baseline in kind.arm_names
    assert set(kind.subjects) <= set(kind.arm_names)
    loads = {load.name for load in kind.loads}
    for goal in kind.goals:
        assert goal.load in loads
        assert {goal.arm, goal.against or goal.arm} <= set(kind.arm_names)
        assert goal.figure in Sample.__struct_fields__
    assert len({load.name for load in kind.loads}) == len(kind.loads)


@pytest.mark.parametrize("kind", GROWTH.values())
def test_every_scenario_of_growth_has_its_arms_and_limits_for_sizes_that_it_measures(kind):
    assert {kind.baseline, kind.subject} <= set(kind.arm_names)
    assert set(kind.limits) <= set(kind.sizes)


def test_growth_is_measured_and_written_without_a_peer_that_is_not_there(invoke, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.scenarios.compile.PEERS", tmp_path / "python")
    monkeypatch.setattr(CompileScenario, "sizes", (20, 40))
    monkeypatch.setattr(CompileScenario, "shapes", ("chain",))
    out = tmp_path / "compile.json"
    result = invoke("compile", "--repeats", "1", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "without the arm langgraph" in result.output
    written = msgspec.json.decode(out.read_bytes(), type=GrowthReport)
    assert [(one.size, one.arm) for one in written.results] == [(20, "ours"), (40, "ours")]
    assert all(one.memory_mb.median > 0 for one in written.results)
    assert set(written.exponents["ours"]) == {"chain"}


@pytest.mark.ray
def test_our_gateway_and_the_peer_answer_side_by_side(invoke, tmp_path):
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG.read_text().replace("../../.data/benchmark", str(tmp_path / "data")))
    out = tmp_path / "gateway.json"
    wanted = ("peer", "local", "remote")
    arms = [word for name in wanted for word in ("--arm", name)]
    result = invoke(
        "gateway", *arms, "--repeats", "1", "--seconds", "0.3", "--config", str(config), "--out", str(out)
    )
    assert result.exit_code == 0, result.output
    results = msgspec.json.decode(out.read_bytes(), type=Report).results
    pairs = [(load, name) for load in ("chat", "stream", "stream alone") for name in wanted]
    assert [(one.load, one.arm) for one in results] == [
        pair for pair in pairs if pair != ("stream alone", "peer")
    ]
    assert all(one.cpu_ms_per_request.median > 0 for one in results)
    assert not EmbeddedValkey(tmp_path / "data" / "store").is_alive()
