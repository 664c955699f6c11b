"""Which replica goes where: a packing of all that a config deploys onto the nodes of a cluster.

    2 model-qwen of 4 GPUs, TP 4     gpu-1: qwen/0     gpu-2: qwen/1
    2 gateway of 0.25 CPUs           cpu-1: gateway/0  cpu-2: gateway/1     (GPU nodes are left alone)

What must share a node does (tensor parallel workers), what may be apart follows (pipeline stages), copies go
to different nodes where there are several, what feeds each other to the same, what takes a part of a GPU to
one that is shared already (`cluster.devices`). Largest first, each where least is left over ("best fit
decreasing"; Johnson 1974); where something finds no room it is moved to the front and all begins again
("Squeaky Wheel" optimization; Joslin and Clements, JAIR 1999). The same input gives the same placement. Ray
decides for itself where a replica starts: what is held to is the pool, that a group is on one node, and
`spread: require`; the node is what it is expected to choose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from cluster import devices
from cluster.config import MEMORY_SHARE
from cluster.devices import TOLERANCE, Left
from cluster.sizing import ModelSize
from cluster.topology import Node, Resources, Topology, accelerator_type

ROUNDS = 8


class Accelerated(msgspec.Struct, frozen=True):
    """What a replica needs of accelerators beside their number."""

    type: str
    tensor: int = 1
    pipeline: int = 1
    memory_share: float = MEMORY_SHARE
    """Of each accelerator's memory: what the engine may use."""
    size: ModelSize | None = None
    """None where it is not known: then memory is not looked at."""
    context: int = 0
    """Tokens of the longest call."""
    sequences: int = 1
    """Calls at once that the engine is set up for."""

    @property
    def gib(self) -> float | None:
        """Memory that one accelerator must have."""
        if self.size is None:
            return None
        return self.size.accelerator_gib(self.tensor, self.pipeline, self.context) / self.memory_share


class Service(msgspec.Struct, frozen=True):
    """Something that is deployed in equal replicas."""

    name: str
    """Of the deployment."""
    field: str
    """Where it stands in the config."""
    replicas: int
    """The most of them, where they come and go: all that may come have a place."""
    groups: tuple[Resources, ...]
    """Of one replica: what must be on one node together, for each node that it may be spread over."""
    pools: tuple[str, ...] = ()
    """Node pools that it may run on; empty: any."""
    spread: Literal["prefer", "require"] = "prefer"
    held_apart: bool = True
    """Whether Ray can be told to keep its replicas on different nodes: not those with placement groups."""
    accelerated: Accelerated | None = None
    least: int | None = None
    """Replicas that there always are, where they come and go."""

    @property
    def whole(self) -> Resources:
        return added(self.groups)


Near = Sequence[tuple[str, str]]
"""Pairs of services that hand much to each other, those with most first."""


class Placed(msgspec.Struct, frozen=True):
    """One replica and its nodes, one for each of its groups."""

    service: str
    replica: int
    nodes: tuple[str, ...]


class Placement(msgspec.Struct, frozen=True):
    """Where everything goes."""

    topology: Topology
    placed: tuple[Placed, ...]
    unplaced: Mapping[str, int]
    """By service: replicas without a place."""
    free: Mapping[str, Resources]
    """By node: what is left over."""
    gpus: Mapping[str, Left]
    """By node: what of each of its GPUs."""

    def used(self) -> set[str]:
        """Nodes that run or are started for it."""
        chosen = {node for placed in self.placed for node in placed.nodes}
        return chosen | {node.name for node in self.topology.nodes if node.running}

    def per_hour(self) -> Decimal:
        """US dollars, of the nodes whose price is known."""
        prices = (node.price_per_hour for node in self.topology.nodes if node.name in self.used())
        return sum((price for price in prices if price is not None), Decimal(0))

    def together(self, near: Near) -> tuple[tuple[str, str], ...]:
        """Of pairs of services, those that share a node."""
        nodes: dict[str, set[str]] = {}
        for placed in self.placed:
            nodes.setdefault(placed.service, set()).update(placed.nodes)
        return tuple(pair for pair in near if nodes.get(pair[0], set()) & nodes.get(pair[1], set()))


def place(services: Sequence[Service], topology: Topology, near: Near = ()) -> Placement:
    """The placement with fewest replicas left without a place, of those that are tried."""
    order = sorted(services, key=_difficulty)
    best: Placement | None = None
    for _ in range(ROUNDS):
        found = _pack(order, topology, near)
        if best is None or sum(found.unplaced.values()) < sum(best.unplaced.values()):
            best = found
        squeaky = [service for service in order if service.name in found.unplaced]
        again = squeaky + [service for service in order if service.name not in found.unplaced]
        if not squeaky or again == order:
            break
        order = again
    return best or Placement(topology, (), {}, {}, {})


def candidates(service: Service, topology: Topology) -> list[Node]:
    """The nodes that have what it asks for when nothing else is on them, as far as one group goes."""
    nodes = [node for node in topology.nodes if not service.pools or node.pool in service.pools]
    if service.accelerated is not None:
        nodes = [node for node in nodes if suits(node, service.accelerated)]
    return [node for node in nodes if any(_fits(group, node.resources) for group in service.groups)]


def suits(node: Node, wanted: Accelerated) -> bool:
    """Whether its accelerators are of the type and large enough."""
    if accelerator_type(node) != wanted.type and f"accelerator_type:{wanted.type}" not in node.resources:
        return False
    return wanted.gib is None or node.accelerator_gib is None or wanted.gib <= node.accelerator_gib


def added(parts: Iterable[Resources]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _difficulty(service: Service) -> tuple[float | str, ...]:
    """What is hardest to place comes first."""
    whole = service.whole
    named = sum(amount for name, amount in whole.items() if name not in ("CPU", "GPU", "memory"))
    return (
        -whole.get("GPU", 0.0),
        -named,
        service.spread != "require",
        not service.pools,
        -whole.get("CPU", 0.0),
        service.name,
    )


_Before = tuple[str, Resources, Left]
"""A node, and what was left of it."""


class _Board:
    """The nodes while they are filled."""

    def __init__(self, topology: Topology, near: Near) -> None:
        self.nodes = topology.nodes
        self.free: dict[str, Resources] = {node.name: node.resources for node in topology.nodes}
        self.gpus = {node.name: devices.untouched(node.accelerators) for node in topology.nodes}
        self.holds: dict[str, Counter[str]] = {node.name: Counter() for node in topology.nodes}
        self.open = {node.name for node in topology.nodes if node.running}
        self.most = topology.most_nodes
        self.index = {node.name: index for index, node in enumerate(topology.nodes)}
        self.partners: dict[str, set[str]] = {}
        for first, second in near:
            self.partners.setdefault(first, set()).add(second)
            self.partners.setdefault(second, set()).add(first)

    def put(self, service: Service, node: str, group: Resources) -> _Before:
        """What to `take_back` it with."""
        free, gpus = self.free[node], self.gpus[node]
        self.free[node] = {name: devices.rest(amount, group.get(name, 0.0)) for name, amount in free.items()}
        self.gpus[node] = devices.taken(gpus, group.get("GPU", 0.0)) or gpus
        self.holds[node][service.name] += 1
        return node, free, gpus

    def take_back(self, service: Service, before: _Before) -> None:
        node, free, gpus = before
        self.free[node], self.gpus[node] = free, gpus
        self.holds[node][service.name] -= 1

    def has_room(self, group: Resources, node: str) -> bool:
        after = devices.taken(self.gpus[node], group.get("GPU", 0.0))
        return after is not None and _fits(group, self.free[node])

    def choose(
        self, service: Service, group: Resources, nodes: Sequence[Node], taken: Sequence[str]
    ) -> str | None:
        """The node for a group of a replica that has `taken` others."""
        apart = service.spread == "require"
        may_open = self.most is None or len(self.open | set(taken)) < self.most
        fitting = [
            node
            for node in nodes
            if self.has_room(group, node.name)
            and (may_open or node.name in self.open or node.name in taken)
            and not (apart and self.holds[node.name][service.name] and node.name not in taken)
        ]
        chosen = min(fitting, key=lambda node: self._rank(service.name, group, node, taken), default=None)
        return None if chosen is None else chosen.name

    def _rank(self, service: str, group: Resources, node: Node, taken: Sequence[str]) -> tuple[float, ...]:
        free, holds = self.free[node.name], self.holds[node.name]
        partners = self.partners.get(service, set())
        gpus = self.gpus[node.name]
        after = devices.taken(gpus, group.get("GPU", 0.0)) or gpus
        return (
            node.name not in taken,  # stages of one replica stay close
            bool(node.accelerators) and not group.get("GPU"),
            node.name not in self.open,
            holds[service],
            not any(holds[partner] for partner in partners),
            devices.whole(gpus) - devices.whole(after),
            free.get("GPU", 0.0),
            free.get("CPU", 0.0),
            self.index[node.name],
        )


def _pack(order: Sequence[Service], topology: Topology, near: Near) -> Placement:
    board = _Board(topology, near)
    placed: list[Placed] = []
    unplaced: dict[str, int] = {}
    for service in order:
        nodes = candidates(service, topology)
        for replica in range(service.replicas):
            chosen = _put_replica(board, service, nodes)
            if chosen is None:
                unplaced[service.name] = service.replicas - replica
                break
            board.open.update(chosen)
            placed.append(Placed(service.name, replica, chosen))
    return Placement(topology, tuple(placed), unplaced, board.free, board.gpus)


def _put_replica(board: _Board, service: Service, nodes: Sequence[Node]) -> tuple[str, ...] | None:
    """Its nodes, one for each group: a single one where all of it fits there."""
    if len(service.groups) > 1:
        one = board.choose(service, service.whole, nodes, ())
        if one is not None:
            for group in service.groups:
                board.put(service, one, group)
            return (one,) * len(service.groups)
    chosen: list[str] = []
    before: list[_Before] = []
    for group in service.groups:
        node = board.choose(service, group, nodes, chosen)
        if node is None:
            for each in reversed(before):
                board.take_back(service, each)
            return None
        before.append(board.put(service, node, group))
        chosen.append(node)
    return tuple(chosen)


def _fits(wanted: Resources, free: Resources) -> bool:
    """Memory that a node does not tell of is taken to be enough."""
    return all(
        amount <= free.get(name, amount if name == "memory" else 0.0) + TOLERANCE
        for name, amount in wanted.items()
    )
