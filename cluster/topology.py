"""What a cluster is: nodes with resources and labels, those that run and those that could be started.

    node_pools of a config ──┐
    a file of Ray's launcher ┼─► Topology ─► placement
    the cluster that runs  ──┘   (`cluster.live`)

Resources have Ray's names: `CPU`, `GPU`, `memory` in bytes, `accelerator_type:L4`. A node that says nothing
of its memory is taken to have enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cluster.accelerators import MEMORY_GIB
from cluster.errors import ConfigError
from cluster.node_pools import ACCELERATOR_LABEL, MAX_NODES, POOL_LABEL, NodePoolSpec

HEAD_RESOURCE = "node:__internal_head__"
"""Ray's mark of the head node."""
_TYPE = "accelerator_type:"
_MAX_FILE_BYTES = 1024 * 1024

Resources = Mapping[str, float]


class Node(msgspec.Struct, frozen=True):
    """A machine that runs or could be started."""

    name: str
    resources: Resources
    labels: Mapping[str, str] = {}
    running: bool = True
    """False: it is started when something asks for it."""
    accelerator_gib: float | None = None
    """Memory of each accelerator; None where it is not known."""
    price_per_hour: Decimal | None = None
    """US dollars."""

    @property
    def pool(self) -> str | None:
        return self.labels.get(POOL_LABEL)

    @property
    def accelerators(self) -> float:
        return self.resources.get("GPU", 0.0)


class Topology(msgspec.Struct, frozen=True):
    """The nodes of a cluster, always in the same order."""

    nodes: tuple[Node, ...]
    source: str
    """What it was read from, for people."""
    most_nodes: int | None = None
    """How many may run at once; None where nothing bounds them."""


def of_pools(pools: Sequence[NodePoolSpec]) -> Topology:
    """The cluster that a config names. Where no pool holds Ray's head, that is a node by itself."""
    nodes = [node for pool in pools for node in _pool_nodes(pool, range(pool.max_nodes))]
    if not any(pool.head for pool in pools):
        nodes.insert(0, Node("head", {HEAD_RESOURCE: 1.0}))
    return Topology(tuple(nodes), "node_pools of the config")


def with_pools(nodes: Iterable[Node], pools: Sequence[NodePoolSpec], source: str) -> Topology:
    """Nodes that run, with what the config says of their pools, and the nodes that those may still start."""
    by_name = {pool.name: pool for pool in pools}
    known = [_described(node, by_name.get(node.pool or "")) for node in nodes]
    there = Counter(node.pool for node in known)
    for pool in pools:
        if pool.max_nodes > pool.min_nodes:  # of a fixed number those that do not run are broken
            more = _pool_nodes(pool, range(there[pool.name], pool.max_nodes))
            known += [msgspec.structs.replace(node, running=False) for node in more]
    return Topology(tuple(known), source)


def of_launcher_file(path: Path, pools: Sequence[NodePoolSpec] = ()) -> Topology:
    """The cluster that a file of Ray's cluster launcher describes; prices are those of `pools` by the same
    name.

    Raises `ConfigError` that names what is wrong with the file.
    """
    given = _load(path)
    types, head = given.get("available_node_types"), given.get("head_node_type")
    if not isinstance(types, dict) or head not in types:
        raise ConfigError(
            f"{path}: it needs `available_node_types`, and a `head_node_type` that is one of them"
        )
    by_name = {pool.name: pool for pool in pools}
    nodes: list[Node] = []
    for name, about in types.items():
        group = _node_type(path, str(name), about)
        lowest, highest = (1, 1) if name == head else (group.min_workers, group.max_workers)
        if highest is None:
            highest = _count(path, "max_workers", given.get("max_workers", 2))
        extra = {HEAD_RESOURCE: 1.0} if name == head else {}
        for index in range(highest):
            node = Node(
                name=f"{name}-{index + 1}" if highest > 1 else str(name),
                resources=group.resources | extra,
                labels={POOL_LABEL: str(name)} | group.labels,
                running=index < lowest,
            )
            nodes.append(_described(node, by_name.get(node.pool or "")))
    most = 1 + _count(path, "max_workers", given.get("max_workers", 2))
    return Topology(tuple(nodes), path.name, most_nodes=most)


def accelerator_type(node: Node) -> str | None:
    """Ray's name of the accelerators of a node."""
    label = node.labels.get(ACCELERATOR_LABEL)
    named = (key.removeprefix(_TYPE) for key in node.resources if key.startswith(_TYPE))
    return label or next(named, None)


class _NodeType(msgspec.Struct):
    """As far as it matters here, an entry of `available_node_types`."""

    resources: dict[str, float]
    min_workers: int = 0
    max_workers: int | None = None
    labels: dict[str, str] = {}


def _node_type(path: Path, name: str, about: Any) -> _NodeType:
    where = f"{path}: available_node_types.{name}"
    if not isinstance(about, dict) or not about.get("resources"):
        raise ConfigError(
            f"{where}.resources: say the CPU and GPU of a machine; only its cloud knows them else"
        )
    try:
        group = msgspec.convert(about, _NodeType)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error
    _count(path, f"available_node_types.{name}.min_workers", group.min_workers)
    _count(path, f"available_node_types.{name}.max_workers", group.max_workers or 0)
    return group


def _count(path: Path, field: str, given: Any) -> int:
    if not isinstance(given, int) or not 0 <= given <= MAX_NODES:
        raise ConfigError(f"{path}: {field} must be a number from 0 to {MAX_NODES}, not {given!r}")
    return given


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_FILE_BYTES} bytes")
        given = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must be a mapping, not {type(given).__name__}")
    return given


def _pool_nodes(pool: NodePoolSpec, indices: Iterable[int]) -> Iterator[Node]:
    resources = pool.node_resources() | ({HEAD_RESOURCE: 1.0} if pool.head else {})
    for index in indices:
        yield Node(
            name=f"{pool.name}-{index + 1}" if pool.max_nodes > 1 else pool.name,
            resources=resources,
            labels=pool.node_labels(),
            running=index < pool.min_nodes,
            accelerator_gib=None if pool.accelerator is None else pool.accelerator.gib,
            price_per_hour=pool.price_per_hour,
        )


def _described(node: Node, pool: NodePoolSpec | None) -> Node:
    """With what a config says of its pool, and of its accelerators' memory what is known of their type."""
    gib = None if pool is None or pool.accelerator is None else pool.accelerator.gib
    resources = dict(node.resources)
    if pool is not None and pool.memory_gib is not None:
        resources["memory"] = pool.memory_gib * 2**30
    return msgspec.structs.replace(
        node,
        resources=resources,
        accelerator_gib=gib or MEMORY_GIB.get(accelerator_type(node) or ""),
        price_per_hour=None if pool is None else pool.price_per_hour,
    )
