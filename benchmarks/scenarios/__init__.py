"""The scenarios by name. Add a module with a `Scenario`, and its line here."""

from __future__ import annotations

from benchmarks.scenario import Scenario
from benchmarks.scenarios.gateway import GatewayScenario

SCENARIOS: dict[str, type[Scenario]] = {"gateway": GatewayScenario}
