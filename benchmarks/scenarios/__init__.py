"""The scenarios by name. Add a module with a `Scenario` or a `GrowthScenario`, and its line here."""

from __future__ import annotations

from benchmarks.growth import GrowthScenario
from benchmarks.scenario import Scenario
from benchmarks.scenarios.compile import CompileScenario
from benchmarks.scenarios.gateway import GatewayScenario

SCENARIOS: dict[str, type[Scenario]] = {"gateway": GatewayScenario}
"""Servers under load."""
GROWTH: dict[str, type[GrowthScenario]] = {"compile": CompileScenario}
"""Work of growing size."""
