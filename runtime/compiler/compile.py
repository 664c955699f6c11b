"""The compiler: seven stages and the writing down.

    Pipeline ─► validate ─► resolve ─► prune ─► dedupe ─► fuse ─► assign ─► order ─► ExecutionPlan

Every stage is pure, so that any of them can be stopped after and looked at (`compile_until`, `stages`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphs.pipeline import Pipeline
from runtime.compiler.catalog import Catalog
from runtime.compiler.draft import Draft
from runtime.compiler.lower import lower
from runtime.compiler.passes.assign import assign
from runtime.compiler.passes.dedupe import dedupe
from runtime.compiler.passes.fuse import fuse
from runtime.compiler.passes.order import order
from runtime.compiler.passes.prune import prune
from runtime.compiler.passes.resolve import resolve
from runtime.compiler.passes.validate import validate
from runtime.plan import ExecutionPlan

VALIDATE = "validate"
PASSES: Mapping[str, Callable[[Draft], Draft]] = {
    "resolve": resolve,
    "prune": prune,
    "dedupe": dedupe,
    "fuse": fuse,
    "assign": assign,
    "order": order,
}
STAGES = (VALIDATE, *PASSES)


def compile_pipeline(pipeline: Pipeline, catalog: Catalog | None = None) -> ExecutionPlan:
    """The plan. Without a catalog every model and index named is taken to exist. Raises `PipelineError`."""
    return lower(compile_until(STAGES[-1], pipeline, catalog))


def compile_until(stage: str, pipeline: Pipeline, catalog: Catalog | None = None) -> Draft:
    """The draft after `stage`, one of `STAGES`. Raises `PipelineError`, and `KeyError` for another name."""
    return stages(pipeline, catalog, until=stage)[stage]


def stages(
    pipeline: Pipeline, catalog: Catalog | None = None, *, until: str = STAGES[-1]
) -> dict[str, Draft]:
    """The draft after every stage up to `until`. Raises `PipelineError`, and `KeyError` for another name."""
    if until not in STAGES:
        raise KeyError(until)
    draft = validate(pipeline, catalog)
    drafts = {VALIDATE: draft}
    for name in STAGES[1 : STAGES.index(until) + 1]:
        draft = PASSES[name](draft)
        drafts[name] = draft
    return drafts
