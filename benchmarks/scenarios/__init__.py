"""The scenarios by name. Add a module with a scenario of one of three kinds, and its line here."""

from __future__ import annotations

from benchmarks.cases import CaseScenario
from benchmarks.growth import GrowthScenario
from benchmarks.scenario import Scenario
from benchmarks.scenarios.autoscaling import AutoscalingScenario
from benchmarks.scenarios.compile import CompileScenario
from benchmarks.scenarios.engine import EngineScenario
from benchmarks.scenarios.gateway import GatewayScenario
from benchmarks.scenarios.graphs import GraphsScenario
from benchmarks.scenarios.keys import KeysScenario
from benchmarks.scenarios.nodes import NodesScenario
from benchmarks.scenarios.quotas import QuotasScenario
from benchmarks.scenarios.replicas import ReplicasScenario
from benchmarks.scenarios.simulate import SimulateScenario

SCENARIOS: dict[str, type[Scenario]] = {
    "engine": EngineScenario,
    "gateway": GatewayScenario,
    "replicas": ReplicasScenario,
}
"""Servers under load."""
GROWTH: dict[str, type[GrowthScenario]] = {"compile": CompileScenario}
"""Work of growing size."""
CASES: dict[str, type[CaseScenario]] = {
    "graphs": GraphsScenario,
    "keys": KeysScenario,
    "nodes": NodesScenario,
    "quotas": QuotasScenario,
    "simulate": SimulateScenario,
    "autoscaling": AutoscalingScenario,
}
"""One piece of work done in several ways."""
