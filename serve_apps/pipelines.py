"""The graphs of a deploy config as plans, compiled against the models and indexes of the same config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as replace_fields
from typing import NamedTuple

from msgspec.structs import replace

from cluster.adapters import host_of
from cluster.errors import ConfigError
from cluster.pools.deploy import model_info
from graphs.errors import PipelineError
from graphs.known import Known
from graphs.pipeline import Pipeline
from graphs.prompt_files import load_prompts
from graphs.together import load_together
from graphs.versions import AT, by_reference, found_in
from runtime.compiler.catalog import Catalog, IndexInfo
from runtime.compiler.compile import compile_pipeline
from runtime.plan import ExecutionPlan
from serve_apps.gateway.inline import Deployed
from serve_apps.gateway.rights import GRAPH_PREFIX
from serve_apps.settings import Settings


def catalog(settings: Settings) -> Catalog:
    """What pipelines may name under these settings."""
    return Catalog(
        models={spec.name: model_info(spec, host_of(spec, settings.models)) for spec in settings.models},
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
"""By graph, as NAME or NAME@VERSION, and path of a node: mean seconds that it took."""


def load_plans(settings: Settings, timings: Timings | None = None) -> dict[str, ExecutionPlan]:
    """The plan of every graph, by name, and of graphs in several versions also by NAME@VERSION; ordered by
    `timings` where there are such.

    Raises `PipelineError` with the problems of all prompts, or of all graphs, each with its place, and
    `ConfigError` for a file that is not there or a version of a name that two files use.
    """
    return load_deployed(settings, timings).plans


class Loaded(NamedTuple):
    """The graphs of a deploy config, and what they were made from."""

    plans: dict[str, ExecutionPlan]
    """By name, and NAME@VERSION."""
    deployed: Deployed
    """What pipelines may name that come with calls."""


def load_deployed(settings: Settings, timings: Timings | None = None) -> Loaded:
    """As `load_plans`."""
    known_here, known = catalog(settings), loadable(settings)
    plans: dict[tuple[str, str], ExecutionPlan] = {}
    pipelines: dict[tuple[str, str], Pipeline] = {}
    problems = []
    for path, loaded in load_together(settings.graphs, known).items():
        if isinstance(loaded, PipelineError):
            problems += loaded.problems
            continue
        if isinstance(loaded, OSError):
            raise ConfigError(f"graphs: cannot read {path}: {loaded.strerror}") from loaded
        about = loaded.pipeline.metadata
        version = about.name, about.version
        try:
            plan = compile_pipeline(loaded.pipeline, _measured(known_here, version, timings or {}))
        except PipelineError as error:
            problems += [loaded.place(problem) for problem in error.problems]
            continue
        if version in plans:
            both = f"version {about.version} of {about.name!r}"
            raise ConfigError(f"graphs: {path} defines {both}, which another file defines already")
        plans[version], pipelines[version] = plan, loaded.pipeline
    if problems:
        raise PipelineError(problems)
    usable, named = replace_fields(known, graphs=by_reference(pipelines)), by_reference(plans)
    _check_tasks(settings, named)
    _check_traffic(settings, named)
    return Loaded(named, Deployed(known_here, usable))


def _check_tasks(settings: Settings, plans: Mapping[str, ExecutionPlan]) -> None:
    """Raises `ConfigError` for a task whose graph is not there."""
    for task, graph in settings.tasks.items():
        if graph not in plans:
            there = ", ".join(name for name in plans if AT not in name) or "none"
            raise ConfigError(f"tasks.{task}: there is no graph {graph!r}; there are: {there}", param="tasks")


def _check_traffic(settings: Settings, plans: Mapping[str, ExecutionPlan]) -> None:
    """Raises `ConfigError` for a version that is not there."""
    for name, weights in settings.traffic.items():
        for target in weights if name.startswith(GRAPH_PREFIX) else ():
            if found_in(plans, target.removeprefix(GRAPH_PREFIX), _version_of) is None:
                graph = name.removeprefix(GRAPH_PREFIX)
                versions = sorted({plan.version for plan in plans.values() if plan.graph == graph})
                there = ", ".join(f"{name}{AT}{version}" for version in versions) or "none"
                raise ConfigError(
                    f"traffic.{name}: there is no {target!r}; there are: {there}", param="traffic"
                )


def _version_of(plan: ExecutionPlan) -> str:
    return plan.version


def _measured(known: Catalog, version: tuple[str, str], timings: Timings) -> Catalog:
    """With what the nodes of one version of a graph took."""
    name, number = version
    taken = timings.get(f"{name}{AT}{number}") or timings.get(name, {})
    return replace(known, timings={name: taken}) if taken else known
