"""What one node costs on each back end, beside the same done without a pipeline.

    N1 inline   N2 task   N3 handle   N4 compiled hop   N5 compiled, from what work on it pays

The models and stages answer at once, so that what is measured is what stands around them.
"""

from __future__ import annotations

from benchmarks.scenarios.hosted import Hosted


class NodesScenario(Hosted):
    """Implements `CaseScenario`."""

    name = "nodes"
