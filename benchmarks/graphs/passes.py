"""P1, the compiler with one pass left out: what each is worth where it has something to do.

    ours            passes.yaml, compiled with all passes
    without PASS    the same, compiled without that one

What fusing is worth are microseconds: see `benchmarks.nodes.local`.
"""

from __future__ import annotations

from time import perf_counter

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.graphs.engine import MODEL
from benchmarks.graphs.session import Session, ended, pipeline_of
from benchmarks.graphs.texts import text_of
from graphs.pipeline import Pipeline
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import PASSES
from runtime.compiler.lower import lower
from runtime.compiler.passes.validate import validate
from runtime.executor.kinds.kind import Resources
from runtime.plan import ExecutionPlan
from runtime.runner import Runner

LEFT_OUT = ("prune", "dedupe", "order")
LETTER_TOKENS = 96
ASKED = 12
ASKED_TOKENS = 48


def case(session: Session) -> Case:
    """An arm for each pass."""
    inputs = {
        "letter": text_of(session.pool, LETTER_TOKENS, 600),
        "asked": [text_of(session.pool, ASKED_TOKENS, 601 + place) for place in range(ASKED)],
    }

    def arm(name: str, describe: str, *without: str) -> CaseArm:
        plan = compiled(pipeline_of("passes"), Catalog({MODEL: session.pool.info}, {}), *without)
        runner = Runner([plan], Resources({MODEL: session.pool}))

        async def run(tenant: str) -> Measured:
            began = perf_counter()
            end = await ended(runner, "passes", inputs, tenant)
            return session.measured(tenant, began, end.outputs)

        return CaseArm(name, describe, run)

    left_out = {name: f"without {name}" for name in LEFT_OUT}
    return Case(
        "P1 passes",
        f"3 calls in a row, a copy of the first, one that nobody reads, and {ASKED} that can wait",
        [
            arm("ours", "all passes"),
            *(arm(shown, f"compiled {shown}", name) for name, shown in left_out.items()),
        ],
        [
            Target("calls", "ours", ">=", 1.05, left_out["prune"]),
            Target("calls", "ours", ">=", 1.05, left_out["dedupe"]),
            Target("latency_s", "ours", ">=", 1.1, left_out["order"]),
        ],
    )


def compiled(pipeline: Pipeline, catalog: Catalog | None, *without: str) -> ExecutionPlan:
    """The plan, made without some of the passes, by their names."""
    draft = validate(pipeline, catalog)
    for name, apply in PASSES.items():
        if name not in without:
            draft = apply(draft)
    return lower(draft)
