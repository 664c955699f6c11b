"""Six shapes of graphs on one real engine, ours beside what one writes by hand and beside LangGraph.

    B1 map-reduce   B2 RAG   B3 uneven branches   B4 dedupe   B5 priority   B6 durable agent

All arms call the bundled SmolLM2 on vLLM through the same Serve handle, with the same decoding (temperature
0, a fixed number of tokens), and must come to the same outputs. What each shape is stands in
`benchmarks/graphs`.
"""

from __future__ import annotations

from benchmarks.scenarios.hosted import Hosted


class GraphsScenario(Hosted):
    """Implements `CaseScenario`."""

    name = "graphs"
