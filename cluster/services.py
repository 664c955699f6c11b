"""What a config deploys, as placement sees it: replicas, what each needs, and on which pools of nodes."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.config import AcceleratedSpec, ReplicatedSpec, VllmSpec
from cluster.node_pools import NodePoolSpec, PlacedSpec
from cluster.placement import Accelerated, Service
from cluster.sizing import ModelSize, cpu_bytes


def pools_of(placed: PlacedSpec, node_pools: Sequence[NodePoolSpec]) -> tuple[str, ...]:
    """The node pools that something may run on; none where nothing holds it to any.

    What needs no accelerator keeps off the machines that have some, where there are others.
    """
    if placed.node_pool is not None:
        return (placed.node_pool,)
    if isinstance(placed, AcceleratedSpec) and not placed.on_cpu:
        return ()
    return tuple(pool.name for pool in node_pools if pool.accelerator is None)


def in_placement_group(spec: AcceleratedSpec) -> bool:
    """Whether its replicas book all they need as one group: those with several workers, and what vLLM asks
    for even without."""
    return isinstance(spec, VllmSpec) or not spec.on_cpu


def model_service(
    spec: ReplicatedSpec, node_pools: Sequence[NodePoolSpec], size: ModelSize | None
) -> Service:
    """A model. `size` is what is known of it."""
    grouped = isinstance(spec, AcceleratedSpec) and in_placement_group(spec)
    needed = {"CPU": spec.num_cpus}
    if isinstance(spec, VllmSpec) and spec.on_cpu and size is not None:
        needed["memory"] = cpu_bytes(spec, size)
    groups: tuple[dict[str, float], ...] = (needed,)
    accelerated = None
    if isinstance(spec, AcceleratedSpec) and spec.accelerator_type is not None:
        group = {"GPU": spec.tensor_parallel_size * spec.worker_gpus}
        groups = (group | needed, *[group] * (spec.pipeline_parallel_size - 1))
        accelerated = _accelerated(spec, spec.accelerator_type, size)
    return Service(
        name=f"model-{spec.name}",
        field=f"models.{spec.name}",
        replicas=spec.most_replicas,
        groups=groups,
        pools=pools_of(spec, node_pools),
        spread=spec.spread,
        held_apart=not grouped,
        accelerated=accelerated,
        least=spec.least_replicas if spec.scales else None,
    )


def _accelerated(spec: AcceleratedSpec, kind: str, size: ModelSize | None) -> Accelerated:
    vllm = spec if isinstance(spec, VllmSpec) else None
    return Accelerated(
        type=kind,
        tensor=spec.tensor_parallel_size,
        pipeline=spec.pipeline_parallel_size,
        memory_share=vllm.memory_share if vllm else 1.0,
        size=size,
        context=spec.max_context,
        sequences=vllm.max_num_seqs if vllm else 1,
    )
