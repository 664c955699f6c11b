"""Why something cannot be placed, in words, and what could be said instead.

For example: "it needs 4 GPUs (A100-80G) on one node for tensor_parallel_size 4; the largest node of pool a100
has 2; take tensor_parallel_size 2 with pipeline_parallel_size 2".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from cluster.config import MEMORY_SHARE
from cluster.devices import TOLERANCE
from cluster.placement import Accelerated, Placement, Service, candidates, place, suits
from cluster.topology import Node, Resources, Topology, accelerator_type

WORKERS = (1, 2, 4, 8, 16, 32, 64)
"""Accelerators of one replica, of the divisions that are suggested."""
_PARTS = {"CPU": "CPUs", "GPU": "GPUs"}


class Refusal(msgspec.Struct, frozen=True):
    """Why a service cannot run, and what would help."""

    service: str
    field: str
    """Where it stands in the config."""
    reason: str


def refusals(services: Sequence[Service], placement: Placement) -> tuple[Refusal, ...]:
    """One for each service that is impossible by itself or found no place, in the order of `services`."""
    found = []
    for service in services:
        reason = _impossible(service, placement.topology)
        if reason is None and service.name in placement.unplaced:
            reason = _crowded(service, placement)
        if reason is not None:
            found.append(Refusal(service.name, service.field, reason))
    return tuple(found)


def crowded_out(services: Sequence[Service], topology: Topology) -> tuple[str, ...]:
    """What needs whole GPUs, and may find none though there is a place for everything: Ray puts parts of GPUs
    on different nodes while it can, and on each may one be that breaks up what the others need together."""
    on_gpus = [service for service in services if service.accelerated is not None]
    parts = [service for service in on_gpus if _part(service) < 1]
    shared = {node.name for service in parts for node in candidates(service, topology)}
    whole = [
        service
        for service in on_gpus
        if _part(service) == 1 and shared & {node.name for node in candidates(service, topology)}
    ]
    if len(shared) < 2 or not whole:
        return ()
    taken = sum(service.replicas * service.whole["GPU"] for service in whole)
    widest = max(group["GPU"] for service in whole for group in service.groups)
    broken = widest * sum(service.replicas for service in parts)
    there = sum(node.accelerators for node in topology.nodes if node.name in shared)
    return tuple(service.name for service in whole) if taken + broken > there else ()


def _impossible(service: Service, topology: Topology) -> str | None:
    """What is wrong with it even on an empty cluster."""
    nodes = _allowed(service, topology)
    if not nodes:
        pools = ", ".join(sorted({node.pool for node in topology.nodes if node.pool})) or "none"
        return f"{topology.source} has no node of pool {' or '.join(service.pools)}; its pools: {pools}"
    if service.accelerated is not None:
        reason = _accelerators(service, service.accelerated, nodes, topology)
        if reason is not None:
            instead = suggestion(service, topology)
            return f"{reason}; {instead}" if instead else reason
    able = candidates(service, topology)
    if not able:
        return _too_large(service, nodes)
    if service.spread == "require":
        return _not_apart(service, able)
    return None


def _allowed(service: Service, topology: Topology) -> list[Node]:
    """The nodes of its pools, whatever they have."""
    return [node for node in topology.nodes if not service.pools or node.pool in service.pools]


def _accelerators(
    service: Service, wanted: Accelerated, nodes: Sequence[Node], topology: Topology
) -> str | None:
    size = wanted.size
    if size is not None and size.heads is not None and size.heads % wanted.tensor:
        return f"tensor_parallel_size {wanted.tensor} does not divide its {size.heads} attention heads"
    if size is not None and size.layers is not None and size.layers < wanted.pipeline:
        return f"pipeline_parallel_size {wanted.pipeline} is more than its {size.layers} layers"
    place_ = _where(service, topology)
    typed = _typed(nodes, wanted)
    if not typed:
        there = Counter(accelerator_type(node) or "unnamed ones" for node in nodes if node.accelerators)
        has = ", ".join(sorted(there)) or "none"
        return f"it needs accelerators of type {wanted.type}; {place_} has {has}"
    suited = [node for node in typed if suits(node, wanted)]
    if not suited:
        largest = max(node.accelerator_gib or 0.0 for node in typed)
        usable = f"{wanted.memory_share:g} of {largest:g} GiB"
        needed = (wanted.gib or 0.0) * wanted.memory_share
        return (
            f"it needs {needed:.1f} GiB on {_each(wanted.tensor * wanted.pipeline)} for its weights "
            f"and one call of {wanted.context} tokens; the engine may use {usable} of each {wanted.type}"
        )
    most = max(node.accelerators for node in suited)
    if wanted.tensor > most:
        return (
            f"it needs {_count(wanted.tensor)} ({wanted.type}) on one node for tensor_parallel_size "
            f"{wanted.tensor}; the largest node of {place_} has {most:g}"
        )
    return None


def _typed(nodes: Sequence[Node], wanted: Accelerated) -> list[Node]:
    """Those with accelerators of its type, however small."""
    return [node for node in nodes if suits(node, msgspec.structs.replace(wanted, size=None))]


def suggestion(service: Service, topology: Topology) -> str:
    """The smallest part of a GPU, or else division of the model, that a node or several could take; empty
    where there is none."""
    part = _part(service)
    if part < 1 and (larger := _larger_part(service, topology)):
        return larger
    whole = "" if part == 1 else "leave num_gpus out and "
    for tensor, pipeline in _shapes(service):
        if _alone(_divided(service, tensor, pipeline), topology):
            if pipeline == 1:
                return f"{whole}take tensor_parallel_size {tensor}"
            return f"{whole}take tensor_parallel_size {tensor} with pipeline_parallel_size {pipeline}"
    other = _other_type(service, topology)
    return f"accelerators of type {other} could take it" if other else ""


def _part(service: Service) -> float:
    """What each worker takes of a GPU."""
    assert service.accelerated is not None
    return service.groups[0]["GPU"] / service.accelerated.tensor


def _larger_part(service: Service, topology: Topology) -> str:
    """The part of a GPU that its model needs, in hundredths; empty where it is not the part that is wrong."""
    wanted, part = service.accelerated, _part(service)
    assert wanted is not None
    typed = _typed(_allowed(service, topology), wanted)
    largest = max((node.accelerator_gib or 0.0 for node in typed), default=0.0)
    if wanted.gib is None or not largest:
        return ""
    share = wanted.gib * wanted.memory_share / largest
    larger = max(part, math.ceil(share / MEMORY_SHARE * 100 - TOLERANCE) / 100)
    if larger > 1 or not _alone(_with_part(service, larger), topology):
        return ""
    said_less = wanted.memory_share < MEMORY_SHARE * part - TOLERANCE
    return f"take num_gpus {larger:g}" + (" without gpu_memory_utilization" if said_less else "")


def _with_part(service: Service, part: float) -> Service:
    """It on that part of a GPU, of which it may use what is usual."""
    assert service.accelerated is not None
    accelerated = msgspec.structs.replace(service.accelerated, memory_share=MEMORY_SHARE * part)
    groups = (dict(service.groups[0]) | {"GPU": part}, *service.groups[1:])
    return msgspec.structs.replace(service, groups=groups, accelerated=accelerated)


def _shapes(service: Service) -> Iterator[tuple[int, int]]:
    """Divisions between accelerators, those of fewest first. Of a model whose size is not known only as many
    as were asked for."""
    wanted = service.accelerated
    if wanted is None:
        return
    size = wanted.size
    asked = wanted.tensor * wanted.pipeline
    for total in WORKERS if size is not None else (asked,):
        for pipeline in range(1, total + 1):
            tensor, rest = divmod(total, pipeline)
            fits_heads = size is None or size.heads is None or size.heads % tensor == 0
            fits_layers = size is None or size.layers is None or pipeline <= size.layers
            if not rest and fits_heads and fits_layers and tensor & (tensor - 1) == 0:
                yield tensor, pipeline


def _divided(service: Service, tensor: int, pipeline: int) -> Service:
    """It with another division of its model, on whole GPUs. The CPUs are those of its first worker."""
    if _part(service) < 1:
        service = _with_part(service, 1.0)
    assert service.accelerated is not None
    first = service.groups[0]
    group = {"GPU": float(tensor)}
    groups = (group | {"CPU": first.get("CPU", 0.0)}, *[group] * (pipeline - 1))
    accelerated = msgspec.structs.replace(service.accelerated, tensor=tensor, pipeline=pipeline)
    return msgspec.structs.replace(service, groups=groups, accelerated=accelerated)


def _other_type(service: Service, topology: Topology) -> str | None:
    """Another type of accelerators on which it would fit as it is."""
    assert service.accelerated is not None
    for kind in sorted({accelerator_type(node) or "" for node in topology.nodes} - {""}):
        accelerated = msgspec.structs.replace(service.accelerated, type=kind)
        if _alone(msgspec.structs.replace(service, accelerated=accelerated, pools=()), topology):
            return kind
    return None


def _alone(service: Service, topology: Topology) -> bool:
    """Whether one replica of it would fit on the empty cluster."""
    one = msgspec.structs.replace(service, replicas=1, spread="prefer")
    return not place([one], topology).unplaced


def _too_large(service: Service, nodes: Sequence[Node]) -> str:
    group = max(service.groups, key=lambda group: group.get("CPU", 0.0))
    lacking = [
        name
        for name, amount in group.items()
        if all(node.resources.get(name, amount if name == "memory" else 0.0) < amount for node in nodes)
    ]
    for name in lacking:
        most = max(node.resources.get(name, 0.0) for node in nodes)
        return (
            f"it needs {_amount(name, group[name])} on one node; the largest node that it may run on has "
            f"{_amount(name, most)}"
        )
    return f"no node that it may run on has {_amounts(group)} at once"


def _not_apart(service: Service, able: Sequence[Node]) -> str | None:
    """Why `spread: require` cannot be held to."""
    if len(able) < service.replicas:
        return (
            f"spread: require asks for a node for each of {service.replicas} replicas; {len(able)} could "
            "take one: take fewer replicas, or spread: prefer"
        )
    if not service.held_apart and service.replicas > 1:
        twice = [node for node in able if _holds_two(service, node)]
        if twice:
            return (
                f"spread: require cannot be held to: two replicas fit on node {twice[0].name}, and Ray keeps "
                "no placement groups apart; book more than half of its CPUs with num_cpus, or take spread: "
                "prefer"
            )
    return None


def _holds_two(service: Service, node: Node) -> bool:
    return all(
        2 * amount <= node.resources.get(name, 2 * amount if name == "memory" else 0.0)
        for name, amount in service.whole.items()
    )


def _crowded(service: Service, placement: Placement) -> str:
    """Why it found no place beside the others."""
    able = candidates(service, placement.topology)
    missing = placement.unplaced[service.name]
    others = Counter(
        placed.service
        for placed in placement.placed
        if placed.service != service.name and {node.name for node in able} & set(placed.nodes)
    )
    beside = ", ".join(f"{count} of {name}" for name, count in sorted(others.items()))
    reason = (
        f"no room for {missing} of {service.replicas} replicas of {_amounts(service.whole)}: "
        f"{len(able)} nodes of {_where(service, placement.topology)} could take one"
    )
    if placement.topology.most_nodes is not None:
        reason += f", and at most {placement.topology.most_nodes} nodes run at once"
    if beside:
        reason += f"; there too: {beside}"
    if service.accelerated is not None and _part(service) < 1:
        left = sorted((free for node in able for free in placement.gpus[node.name]), reverse=True)
        reason += f"; of no GPU there is more than {left[0]:g} left"
    return reason


def _where(service: Service, topology: Topology) -> str:
    if service.pools:
        return f"pool {' or '.join(service.pools)}"
    return topology.source


def _count(accelerators: float) -> str:
    return "1 GPU" if accelerators == 1 else f"{accelerators:g} GPUs"


def _each(accelerators: int) -> str:
    return "its GPU" if accelerators == 1 else f"each of {accelerators} GPUs"


def _amounts(resources: Resources) -> str:
    parts = [_amount(name, amount) for name, amount in resources.items() if amount]
    return " and ".join(parts) or "nothing"


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:.1f} GiB of memory"
    return f"{amount:g} {_PARTS.get(name, name)}"
