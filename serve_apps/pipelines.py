"""The graphs of a deploy config as plans, compiled against the models and indexes of the same config."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from cluster.errors import ConfigError
from cluster.pools.deploy import model_info
from graphs.errors import PipelineError
from graphs.known import Known
from graphs.prompt_files import load_prompts
from graphs.together import load_together
from runtime.compiler.catalog import Catalog, IndexInfo
from runtime.compiler.compile import compile_pipeline
from runtime.plan import ExecutionPlan
from serve_apps.settings import Settings


def catalog(settings: Settings) -> Catalog:
    """What pipelines may name under these settings."""
    return Catalog(
        models={spec.name: model_info(spec) for spec in settings.models},
        indexes={name: IndexInfo(name, index.model) for name, index in settings.indexes.items()},
        hosts=frozenset(settings.http.by_name()),
        secrets=frozenset(settings.http.env),
        servers=frozenset(settings.mcp),
    )


def loadable(settings: Settings) -> Known:
    """What pipelines may use of other files under these settings.

    Raises `PipelineError` with the problems of all prompt files, and `ConfigError` for one that is not there.
    """
    try:
        prompts = load_prompts(settings.prompts)
    except OSError as error:
        raise ConfigError(f"prompts: cannot read {error.filename}: {error.strerror}") from error
    return Known(prompts=prompts, modules=None if settings.functions is None else tuple(settings.functions))


Timings = Mapping[str, Mapping[str, float]]
"""By graph and path of a node: mean seconds that it took."""


def load_plans(settings: Settings, timings: Timings | None = None) -> dict[str, ExecutionPlan]:
    """The plan of every graph, by name, ordered by `timings` where there are such.

    Raises `PipelineError` with the problems of all prompts, or of all graphs, each with its place, and
    `ConfigError` for a file that is not there or a name that two files use.
    """
    deployed, known = replace(catalog(settings), timings=timings or {}), loadable(settings)
    plans: dict[str, ExecutionPlan] = {}
    problems = []
    for path, loaded in load_together(settings.graphs, known).items():
        if isinstance(loaded, PipelineError):
            problems += loaded.problems
            continue
        if isinstance(loaded, OSError):
            raise ConfigError(f"graphs: cannot read {path}: {loaded.strerror}") from loaded
        try:
            plan = compile_pipeline(loaded.pipeline, deployed)
        except PipelineError as error:
            problems += [loaded.place(problem) for problem in error.problems]
            continue
        if plan.graph in plans:
            raise ConfigError(f"graphs: {path} defines {plan.graph!r}, which another file defines already")
        plans[plan.graph] = plan
    if problems:
        raise PipelineError(problems)
    return plans
