"""What a person says of the machines: pools of equal nodes, and which of them something may run on.

    node_pools:
      - {name: cpu, cpus: 8, nodes: {min: 1, max: 8}, price_per_hour: 0.41}
      - {name: gpu, cpus: 24, accelerator: {type: A100-80G, count: 2}, nodes: 4, price_per_hour: 7.35}

The nodes of a pool carry the label `pool` with its name, which is how Ray finds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cluster.accelerators import MEMORY_GIB
from cluster.spec import Dollars, Spec

POOL_LABEL = "pool"
ACCELERATOR_LABEL = "ray.io/accelerator-type"
MAX_NODES = 4096

_WORD = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
PoolName = Annotated[str, Field(pattern=rf"^{_WORD}$")]
LabelKey = Annotated[str, Field(pattern=rf"^([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_WORD}$")]
LabelValue = Annotated[str, Field(pattern=rf"^{_WORD}$")]


class AcceleratorSpec(Spec):
    """The accelerators of one node, all alike."""

    type: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Ray's name, such as "H100" or "L4"."""
    count: int = Field(default=1, ge=1, le=64)
    memory_gib: float | None = Field(default=None, gt=0, le=4096)
    """Of each. Default: what is known of the type."""

    @property
    def gib(self) -> float | None:
        """Memory of each; None where nothing is known of the type."""
        return self.memory_gib or MEMORY_GIB.get(self.type)


class NodeRange(Spec):
    """How many nodes there are, where a cluster grows and shrinks with what is asked of it."""

    min: int = Field(default=0, ge=0, le=MAX_NODES)
    max: int = Field(ge=1, le=MAX_NODES)

    @model_validator(mode="after")
    def _in_order(self) -> NodeRange:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must be at most max ({self.max})")
        return self


class NodePoolSpec(Spec):
    """Nodes that are alike."""

    name: PoolName
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Of its nodes, beside `pool: NAME`, which each has."""
    cpus: float = Field(ge=0, le=4096)
    """Logical CPUs of each node. 0 keeps off whatever asks for one."""
    memory_gib: float | None = Field(default=None, gt=0, le=65536)
    """Main memory of each node. Default: not looked at."""
    accelerator: AcceleratorSpec | None = None
    nodes: Annotated[int, Field(ge=1, le=MAX_NODES)] | NodeRange = 1
    """A number, or `{min: 0, max: 4}` of a pool that grows with what is asked of it."""
    price_per_hour: Dollars | None = None
    """US dollars for an hour of one node. Default: not known."""
    head: bool = False
    """Whether its one node is Ray's head. Default: the head is a machine of its own, without replicas."""

    @model_validator(mode="after")
    def _fields_agree(self) -> NodePoolSpec:
        reserved = [key for key in self.labels if key == POOL_LABEL or key.startswith("ray.io/")]
        if reserved:
            raise ValueError(f"labels: {reserved[0]!r} is set by itself; leave it out")
        if self.head and self.nodes != 1:
            raise ValueError("head: a pool that holds the head has one node; set `nodes: 1`")
        return self

    @property
    def min_nodes(self) -> int:
        return self.nodes if isinstance(self.nodes, int) else self.nodes.min

    @property
    def max_nodes(self) -> int:
        return self.nodes if isinstance(self.nodes, int) else self.nodes.max

    def node_labels(self) -> dict[str, str]:
        """What Ray knows each of its nodes by."""
        known = {POOL_LABEL: self.name} | self.labels
        return known if self.accelerator is None else known | {ACCELERATOR_LABEL: self.accelerator.type}

    def node_resources(self) -> dict[str, float]:
        """What Ray counts of each of its nodes."""
        resources: dict[str, float] = {"CPU": self.cpus}
        if self.memory_gib is not None:
            resources["memory"] = self.memory_gib * 2**30
        if self.accelerator is not None:
            resources |= {"GPU": self.accelerator.count, f"accelerator_type:{self.accelerator.type}": 1.0}
        return resources


def pool_selector(names: Sequence[str]) -> dict[str, str]:
    """Ray's label selector of the nodes of any of these pools."""
    return {POOL_LABEL: names[0] if len(names) == 1 else f"in({', '.join(names)})"}


class PlacedSpec(Spec):
    """What runs on nodes of the cluster."""

    node_pool: PoolName | None = None
    """Whose nodes its replicas run on. Default: any that fits; those without accelerators, where it needs
    none and `node_pools` has such."""
    spread: Literal["prefer", "require"] = "prefer"
    """`require`: no two replicas on one node, so that the loss of a node costs one of them."""
