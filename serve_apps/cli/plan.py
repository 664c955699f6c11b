"""`clustergraph plan`: where everything of a config would run, what that costs, and what it changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from cluster.changes import Change, changes
from cluster.config import ReplicatedSpec
from cluster.errors import ConfigError
from cluster.live import SOURCE, Deployed, Observed, to_be_deployed
from cluster.placement import Placement, Service
from cluster.pools.deploy import deployment_of
from cluster.services import pools_of
from cluster.topology import Topology, of_launcher_file, of_pools, with_pools
from graphs.errors import PipelineError
from serve_apps.cli.observing import observe
from serve_apps.cli.options import CONFIG, QUICKSTART
from serve_apps.pipelines import load_plans
from serve_apps.planning import Planned, plan_on
from serve_apps.settings import Settings, load_settings

AGAINST = Annotated[
    str | None,
    typer.Option(
        help="`live`: the cluster that runs; `config`: the node pools of the config; or a file of Ray's "
        "cluster launcher. Default: the node pools, where the config names any, else `live`."
    ),
]
ADDRESS = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray that runs, as HOST:PORT. Default: that of `clustergraph up`.", envvar="RAY_ADDRESS"
    ),
]
DIFF = Annotated[bool, typer.Option("--diff", help="Print what deploying it would change of what runs.")]
JSON = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def plan(
    config: CONFIG = QUICKSTART,
    against: AGAINST = None,
    address: ADDRESS = None,
    diff: DIFF = False,
    as_json: JSON = False,
) -> None:
    """Print where every replica would run. Exits with 1 and the reasons where something cannot."""
    settings = load_settings(config)
    try:
        plans = load_plans(settings)
    except PipelineError as error:
        raise ConfigError(str(error)) from error
    observed = observe(settings.data_dir, address) if diff or _is_live(against, settings) else None
    planned = plan_on(settings, plans, _topology(settings, against, observed))
    changed = None if observed is None or not diff else changes(observed.deployed, wanted(settings, planned))
    if as_json:
        typer.echo(json.dumps(report(planned, changed), indent=2))
    else:
        _print(Console(markup=False, highlight=False, soft_wrap=True), planned, changed)
    raise typer.Exit(1 if planned.refusals else 0)


def wanted(settings: Settings, planned: Planned) -> list[Deployed]:
    """The deployments of a config. Those that are no models get other replicas with every deployment."""
    models = [
        to_be_deployed(deployment_of(spec, node_pools=pools_of(spec, settings.node_pools)))
        for spec in settings.models
        if isinstance(spec, ReplicatedSpec)
    ]
    known = {model.name for model in models}
    processes = "graphs."  # of functions: they belong to the runner, not to Serve
    others = [
        Deployed(service.name, service.replicas)
        for service in planned.services
        if service.name not in known and not service.name.startswith(processes)
    ]
    return [*models, *others]


def report(planned: Planned, changed: Sequence[Change] | None) -> dict[str, Any]:
    """All of it, for machines."""
    placement = planned.placement
    used = placement.used()
    nodes = [
        {
            "name": node.name,
            "pool": node.pool,
            "running": node.running,
            "used": node.name in used,
            "price_per_hour": None if node.price_per_hour is None else str(node.price_per_hour),
            "free": {name: amount for name, amount in placement.free[node.name].items() if _counted(name)},
            "free_gpus": list(placement.gpus[node.name]),
        }
        for node in placement.topology.nodes
    ]
    return {
        "against": placement.topology.source,
        "feasible": not planned.refusals,
        "refusals": msgspec.to_builtins(planned.refusals),
        "replicas": msgspec.to_builtins(placement.placed),
        "unplaced": dict(placement.unplaced),
        "nodes": nodes,
        "together": [list(pair) for pair in placement.together(planned.near)],
        "on_one_node": on_one_node(placement),
        "cost_per_hour": str(placement.per_hour()),
        "nodes_without_price": _without_price(placement),
        "notes": list(notes(planned)),
        "changes": None if changed is None else msgspec.to_builtins(changed),
    }


def on_one_node(placement: Placement) -> list[str]:
    """Services that the loss of one node takes away altogether."""
    nodes: dict[str, set[str]] = {}
    for placed in placement.placed:
        nodes.setdefault(placed.service, set()).add(" ".join(sorted(set(placed.nodes))))
    return sorted(service for service, on in nodes.items() if len(on) == 1)


def notes(planned: Planned) -> Iterator[str]:
    """What comes and goes, and what the memory of accelerators holds, or that it could not be looked at."""
    scaled = [service.name for service in planned.services if service.least is not None]
    if scaled:
        yield f"placed and priced with the most replicas that there may be of {', '.join(scaled)}"
    if doubted := planned.doubted():
        yield doubted
    for service in planned.services:
        wanted_ = service.accelerated
        if wanted_ is None:
            continue
        if wanted_.size is None:
            yield f"{service.field}: its size is not known, so memory was not looked at; say `parameters`"
            continue
        on = {
            name
            for placed in planned.placement.placed
            if placed.service == service.name
            for name in placed.nodes
        }
        gib = [
            n.accelerator_gib for n in planned.placement.topology.nodes if n.name in on and n.accelerator_gib
        ]
        usable = min(gib, default=0.0) * wanted_.memory_share
        room = (
            wanted_.size.contexts(usable, wanted_.tensor, wanted_.pipeline, wanted_.context) if gib else None
        )
        if room is not None:
            yield (
                f"{service.field}: room for {room:.1f} calls of {wanted_.context} tokens at once, of "
                f"max_num_seqs {wanted_.sequences}"
            )


def _is_live(against: str | None, settings: Settings) -> bool:
    return against == "live" or (against is None and not settings.node_pools)


def _topology(settings: Settings, against: str | None, observed: Observed | None) -> Topology:
    if observed is not None and _is_live(against, settings):
        return with_pools(observed.nodes, settings.node_pools, SOURCE)
    if against in (None, "config"):
        if not settings.node_pools:
            raise ConfigError(
                "the config names no node_pools: plan against `live` or a file of Ray's launcher"
            )
        return of_pools(settings.node_pools)
    return of_launcher_file(Path(str(against)), settings.node_pools)


def _print(console: Console, planned: Planned, changed: Sequence[Change] | None) -> None:
    placement = planned.placement
    console.print(f"on {placement.topology.source}", style="bold")
    table = Table("deployment", "replicas", "each", "on")
    for service in planned.services:
        table.add_row(service.name, _replicas(service, placement), _each(service), _on(service, placement))
    console.print(table)
    _print_nodes(console, placement)
    for first, second in placement.together(planned.near):
        console.print(f"together: {first} and {second}, which takes what the first makes")
    console.print(f"on one node alone: {', '.join(on_one_node(placement)) or 'nothing'}")
    for note in notes(planned):
        console.print(note)
    unknown = _without_price(placement)
    more = f"; of {unknown} of the nodes the price is not known" if unknown else ""
    console.print(f"{placement.per_hour():.2f} dollars an hour{more}")
    if changed is not None:
        console.print("What deploying it changes", style="bold")
        for change in changed:
            console.print(
                f"  {change.deployment}: {change.kind}" + (f" ({change.why})" if change.why else "")
            )
    if planned.refusals:
        console.print(f"this does not fit on {placement.topology.source}:", style="red")
        console.print(planned.refused(), style="red")


def _print_nodes(console: Console, placement: Placement) -> None:
    holds: dict[str, Counter[str]] = {}
    for placed in placement.placed:
        for name in set(placed.nodes):
            holds.setdefault(name, Counter())[placed.service] += 1
    table = Table("node", "pool", "state", "holds", "spare")
    idle: Counter[str] = Counter()
    for node in placement.topology.nodes:
        if node.name not in placement.used():
            idle[node.pool or "no pool"] += 1
            continue
        what = ", ".join(f"{count} {name}" for name, count in sorted(holds.get(node.name, Counter()).items()))
        spare = _spare(node.name, placement)
        table.add_row(node.name, node.pool or "", "runs" if node.running else "started", what, spare)
    console.print(table)
    for pool, count in sorted(idle.items()):
        console.print(f"{count} more nodes of {pool} could be started")


def _spare(node: str, placement: Placement) -> str:
    """Of GPUs that are shared what is left of each: 0.4 of two are not 0.8 of one."""
    free = {name: f"{amount:g}" for name, amount in placement.free[node].items() if _counted(name)}
    gpus = sorted(placement.gpus[node])
    if any(0 < left < 1 for left in gpus):
        free["GPU"] = " + ".join(f"{left:g}" for left in gpus if left)
    return ", ".join(f"{amount} {name}" for name, amount in free.items())


def _replicas(service: Service, placement: Placement) -> str:
    missing = placement.unplaced.get(service.name, 0)
    if missing:
        return f"{service.replicas - missing} of {service.replicas}"
    return str(service.replicas) if service.least is None else f"{service.least} to {service.replicas}"


def _each(service: Service) -> str:
    text = ", ".join(f"{amount:g} {name}" for name, amount in service.whole.items() if _counted(name))
    wanted_ = service.accelerated
    if wanted_ is None:
        return text
    return f"{text} ({wanted_.type}, TP {wanted_.tensor}, PP {wanted_.pipeline})"


def _on(service: Service, placement: Placement) -> str:
    nodes = (placed.nodes for placed in placement.placed if placed.service == service.name)
    counts = Counter(" + ".join(dict.fromkeys(each)) for each in nodes)
    return "\n".join(f"{name}: {count}" for name, count in counts.items())


def _without_price(placement: Placement) -> int:
    used = placement.used()
    return sum(node.name in used and node.price_per_hour is None for node in placement.topology.nodes)


def _counted(resource: str) -> bool:
    return resource in ("CPU", "GPU")
