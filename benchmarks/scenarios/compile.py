"""Seconds and memory to compile pipelines of 100 to 10,000 nodes, beside LangGraph's own compilation.

    ours       YAML ─► checked pipeline ─► seven stages ─► plan, each stage timed by itself
    langgraph  `StateGraph` with the same nodes and edges, built and compiled: the floor, as it checks no
               types and optimises nothing

The limits are for ours, reading the YAML included.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.growth import GrowthArm
from benchmarks.scenario import Options
from benchmarks.shapes import SHAPES

PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
"""`scripts/peers` makes it."""


class CompileScenario:
    """Implements `GrowthScenario`."""

    arm_names: tuple[str, ...] = ("langgraph", "ours")
    baseline = "langgraph"
    subject = "ours"
    shapes: Sequence[str] = tuple(SHAPES)
    sizes: Sequence[int] = (100, 1_000, 3_000, 10_000)
    limits: Mapping[int, float] = {1_000: 1.0, 10_000: 15.0}

    def __init__(self, options: Options) -> None:
        self._wanted = options.arms or self.arm_names

    def arms(self) -> list[GrowthArm]:
        """Without LangGraph where it is not installed."""
        arms = [
            GrowthArm(
                "langgraph",
                "LangGraph's StateGraph of the same nodes and edges; no types, no optimisation",
                lambda shape, size: [str(PEERS), "-m", "benchmarks.compile_langgraph", shape, str(size)],
            ),
            GrowthArm(
                "ours",
                "YAML read and checked, seven stages, plan",
                lambda shape, size: [sys.executable, "-m", "benchmarks.compile_ours", shape, str(size)],
            ),
        ]
        return [
            arm for arm in arms if arm.name in self._wanted and (arm.name != "langgraph" or PEERS.exists())
        ]
