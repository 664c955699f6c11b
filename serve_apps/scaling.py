"""What the policy that has replicas come and go is told of a deploy config and its graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from cluster.adapters import host_of
from cluster.autoscaling.budget import first
from cluster.autoscaling.model import PoolScale, Scaling
from cluster.config import ReplicatedSpec, TimePrice
from cluster.errors import ConfigError
from cluster.node_pools import NodePoolSpec
from cluster.placement import Service
from cluster.services import model_service
from graphs.versions import AT
from runtime.compiler.estimates import DECODE_S, EMBED_S, PREFILL_S, TYPICAL_SHARE
from runtime.plan import Demand, ExecutionPlan
from serve_apps.planning import model_size, runner_service
from serve_apps.settings import Settings

RUNNER = "runner"
UNKNOWN_EMBED_S = 0.05
"""That a call of an embedding model takes which is on no path."""


def scaling_of(settings: Settings, plans: Mapping[str, ExecutionPlan]) -> Scaling | None:
    """None where every number of replicas is fixed.

    Raises `ConfigError` for a budget that is not enough for what there always is, or that bounds nothing.
    """
    newest = {name: plan for name, plan in plans.items() if AT not in name}
    demands = {name: _by_host(plan.demand, settings) for name, plan in newest.items()}
    pools = {
        _deployment(spec.name): PoolScale(
            spec.least_replicas,
            spec.most_replicas,
            float(spec.at_once),
            _seconds(spec, [demand[spec.name] for demand in demands.values() if spec.name in demand]),
            per_hour(spec, settings),
        )
        for spec in _models(settings)
        if spec.scales
    }
    runner = settings.runner
    if settings.graphs and runner.scales:
        cost = _share_of_node(runner_service(settings), settings.node_pools)
        seconds = max((_length(plan) for plan in newest.values()), default=1.0)
        pools[RUNNER] = PoolScale(
            runner.least_replicas, runner.most_replicas, float(runner.at_once), seconds, float(cost)
        )
    if not pools:
        return None
    _check_budget(settings, pools)
    said = settings.autoscaling
    return Scaling(
        pools=pools,
        runner=RUNNER,
        paths={name: {RUNNER: 1.0} | _visits(demand) for name, demand in demands.items()},
        wait_s=said.wait,
        in_time=said.in_time,
        down_after_s=said.down_after,
        zero_after_s=said.zero_after,
        max_per_hour=None if said.max_cost_per_hour is None else float(said.max_cost_per_hour),
    )


def per_hour(spec: ReplicatedSpec, settings: Settings) -> float:
    """Dollars for an hour of one replica: as its price says, or its part of the node that it runs on. 0 where
    neither is known."""
    if isinstance(spec.price, TimePrice):
        return float(spec.price.per_hour)
    service = model_service(spec, settings.node_pools, model_size(spec, settings.data_dir))
    return float(_share_of_node(service, settings.node_pools))


def _check_budget(settings: Settings, pools: Mapping[str, PoolScale]) -> None:
    most = settings.autoscaling.max_cost_per_hour
    if most is None:
        return
    where = "autoscaling.max_cost_per_hour"
    costs = {name: first(pool, pool.most) * pool.per_hour for name, pool in pools.items()}
    if not any(costs.values()):
        raise ConfigError(
            f"{where}: nothing that scales has a price: say `price: {{per_hour: …}}` of a model, or "
            "`price_per_hour` of a node pool",
            param=where,
        )
    least = sum(costs.values())
    if least > most:
        each = ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items() if cost)
        raise ConfigError(
            f"{where}: {most} is less than {least:.2f}, which the fewest replicas that can work cost, one of "
            f"each at least: {each}",
            param=where,
        )


def _models(settings: Settings) -> Iterator[ReplicatedSpec]:
    return (spec for spec in settings.models if isinstance(spec, ReplicatedSpec))


def _deployment(model: str) -> str:
    return f"model-{model}"


def _by_host(demand: Mapping[str, Demand], settings: Settings) -> dict[str, Demand]:
    """Demand on the models whose replicas do the work: that on an adapter is on its base."""
    specs = {spec.name: spec for spec in settings.models}
    total: dict[str, Demand] = {}
    for model, each in demand.items():
        host = host_of(specs[model], settings.models)
        if isinstance(host, ReplicatedSpec):
            before = total.get(host.name, Demand())
            total[host.name] = Demand(
                before.visits + each.visits,
                before.prompt_tokens + each.prompt_tokens,
                before.output_tokens + each.output_tokens,
            )
    return total


def _visits(demand: Mapping[str, Demand]) -> dict[str, float]:
    return {_deployment(model): each.visits for model, each in demand.items() if each.visits}


def _seconds(spec: ReplicatedSpec, demands: list[Demand]) -> float:
    """That a call takes, by the tokens that graphs have estimated for it."""
    visits = sum(demand.visits for demand in demands)
    generates = getattr(spec, "task", "generate") == "generate"
    if not visits:
        return TYPICAL_SHARE * spec.default_max_tokens * DECODE_S if generates else UNKNOWN_EMBED_S
    prompts = sum(demand.prompt_tokens for demand in demands)
    outputs = sum(demand.output_tokens for demand in demands)
    return (prompts * (PREFILL_S if generates else EMBED_S) + outputs * DECODE_S) / visits


def _length(plan: ExecutionPlan) -> float:
    return max((step.remaining_s for step in plan.steps), default=0.0)


def _share_of_node(service: Service, node_pools: list[NodePoolSpec]) -> Decimal:
    """Dollars an hour, on the dearest of the pools that it may run on: the largest part of any resource of a
    node that it takes. 0 where no such pool has a price."""
    costs = [Decimal(0)]
    for pool in node_pools:
        has = pool.node_resources()
        if pool.price_per_hour is None or (service.pools and pool.name not in service.pools):
            continue
        if service.accelerated and f"accelerator_type:{service.accelerated.type}" not in has:
            continue
        shares = [
            max((amount / has[name] for name, amount in group.items() if has.get(name)), default=0.0)
            for group in service.groups
        ]
        costs.append(pool.price_per_hour * Decimal(sum(shares)))
    return max(costs)
