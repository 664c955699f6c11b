"""What a deploy config asks of a cluster, and whether that can give it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from cluster import live
from cluster.config import ReplicatedSpec, VllmSpec
from cluster.errors import ConfigError
from cluster.feasibility import Refusal, crowded_out, refusals
from cluster.models import model_folder
from cluster.placement import Placement, Service, place
from cluster.services import model_service, pools_of
from cluster.sizing import Facts, ModelSize, read_facts, size_of
from cluster.topology import HEAD_RESOURCE, Topology, of_pools
from graphs.nodes.function import Function
from runtime.plan import ExecutionPlan, ExecutionStep
from serve_apps.settings import Settings

_log = structlog.get_logger()

Plans = Mapping[str, ExecutionPlan]


class Planned(msgspec.Struct, frozen=True):
    """A config on a cluster."""

    services: tuple[Service, ...]
    near: tuple[tuple[str, str], ...]
    """Pairs of deployments that hand much to each other, those with most first."""
    placement: Placement
    refusals: tuple[Refusal, ...]

    def refused(self) -> str:
        """What is wrong, one line for each deployment; empty where all have a place."""
        return "\n".join(f"  {refusal.field}: {refusal.reason}" for refusal in self.refusals)

    def doubted(self) -> str:
        """What may be lacking all the same, since Ray chooses where replicas start; empty for nothing."""
        crowded = crowded_out(self.services, self.placement.topology)
        if not crowded or self.refusals:
            return ""
        return (
            f"Ray may spread the parts of GPUs over more nodes than this, and leave no whole ones to "
            f"{', '.join(crowded)}: give what shares GPUs a node_pool of its own"
        )


def plan_on(settings: Settings, plans: Plans, topology: Topology) -> Planned:
    """Where everything of a config goes on that cluster."""
    services, near = services_of(settings, plans), near_of(settings, plans)
    placement = place(services, topology, near)
    return Planned(services, near, placement, refusals(services, placement))


def check(settings: Settings, plans: Plans, *, grows: bool) -> None:
    """Raises `ConfigError` with every reason why the config cannot run on the cluster that this process is
    connected to or, where it is to none, on the node pools that it names.

    `grows`: nodes may be started that the config says nothing of. Then it is only said in the log.
    """
    topology = live.topology(settings.node_pools)
    if topology is None:
        if not settings.node_pools:
            return
        topology, grows = of_pools(settings.node_pools), False
    planned = plan_on(settings, plans, topology)
    refused = planned.refused()
    if doubted := planned.doubted():
        _log.warning("there may be no room where Ray places the replicas", why=doubted)
    if refused and grows:
        _log.warning("no room on the nodes that run: name the others under node_pools", why=refused)
    elif refused:
        raise ConfigError(f"this does not fit on {topology.source}:\n{refused}")


def services_of(settings: Settings, plans: Plans) -> tuple[Service, ...]:
    """Everything that Serve deploys of a config, and the processes of functions."""
    pools = settings.node_pools
    found = [
        model_service(spec, pools, model_size(spec, settings.data_dir))
        for spec in settings.models
        if isinstance(spec, ReplicatedSpec)
    ]
    if settings.graphs:
        found.append(runner_service(settings))
        found += _functions(settings, plans)
    gateway = settings.gateway
    needs = ({"CPU": gateway.num_cpus},)
    found.append(
        Service("gateway", "gateway", gateway.replicas, needs, pools_of(gateway, pools), gateway.spread)
    )
    on_head: dict[str, float] = {HEAD_RESOURCE: 0.001}
    if settings.store.url is None:
        found.append(Service("store", "store", 1, (on_head,)))
    anywhere = settings.usage.url is not None and settings.store.url is not None
    found.append(Service("accountant", "usage", 1, ({} if anywhere else on_head,)))
    return tuple(found)


def near_of(settings: Settings, plans: Plans) -> tuple[tuple[str, str], ...]:
    """Models of which the second takes what the first makes, in any graph."""
    here = {spec.name for spec in settings.models if isinstance(spec, ReplicatedSpec)}
    pairs = (pair for plan in plans.values() for pair in plan.colocate if here.issuperset(pair))
    return tuple(dict.fromkeys((f"model-{first}", f"model-{second}") for first, second in pairs))


def model_size(spec: ReplicatedSpec, data_dir: Path) -> ModelSize | None:
    """What a model takes of memory, as far as its files here or its spec tell."""
    if not isinstance(spec, VllmSpec):
        return None
    try:
        folder = model_folder(spec.source, data_dir)
    except ConfigError:  # not here, but it may be on the nodes that load it
        folder = None
    return size_of(spec, Facts() if folder is None else read_facts(folder))


def runner_service(settings: Settings) -> Service:
    """What runs the graphs."""
    runner = settings.runner
    return Service(
        name="runner",
        field="runner",
        replicas=runner.most_replicas,
        groups=({"CPU": runner.num_cpus},),
        pools=pools_of(runner, settings.node_pools),
        spread=runner.spread,
        least=runner.least_replicas if runner.scales else None,
    )


def _functions(settings: Settings, plans: Plans) -> Iterator[Service]:
    """The processes of functions: each runner has its own."""
    pools = pools_of(settings.runner, settings.node_pools)
    for plan in {(plan.graph, plan.version): plan for plan in plans.values()}.values():
        for step in _steps(plan.steps):
            for node in step.nodes if step.backend == "compiled" else ():
                cpus = node.spec.num_cpus if isinstance(node.spec, Function) else None
                where = f"graphs.{plan.graph}@{plan.version}.{node.name}"
                yield Service(where, where, settings.runner.most_replicas, ({"CPU": cpus or 1.0},), pools)


def _steps(steps: Sequence[ExecutionStep]) -> Iterator[ExecutionStep]:
    for step in steps:
        yield step
        for node in step.nodes:
            for body in node.bodies.values():
                yield from _steps(body.steps)
