"""Real Ray Serve on a cluster of fake nodes: replicas land where the plan says, and come back where they can.

    head (no CPUs)    cpu, cpu, cpu (2 CPUs each)    gpu, gpu (2 fake GPUs each)

One cluster for the whole file, so the tests depend on their order: the last one takes a node away.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from cluster import live
from cluster.changes import changes
from cluster.config import FakeSpec
from cluster.errors import ClusterError, ConfigError
from cluster.interface import Batch
from cluster.node_pools import NodePoolSpec
from cluster.placement import Placement, place
from cluster.pools.deploy import bind, deployment_of, model_info, token_counter
from cluster.pools.handle import HandlePool
from cluster.services import model_service, pools_of
from cluster.topology import Topology, with_pools
from serve_apps.app import BuildArguments, build
from tests.cluster.calls import chat, keep
from tests.local_ray import shut_down

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

POOLS = [
    NodePoolSpec.model_validate({"name": "cpu", "cpus": 2, "nodes": 3}),
    NodePoolSpec.model_validate(
        {"name": "gpu", "cpus": 2, "accelerator": {"type": "A100", "count": 2}, "nodes": 2}
    ),
]
WAIT_S = 600.0
GPUS = {"engine": "fake", "accelerator_type": "A100", "num_cpus": 0.5}
PAIR = FakeSpec.model_validate({"name": "pair", "tensor_parallel_size": 2, "node_pool": "gpu"} | GPUS)
LONG = FakeSpec.model_validate(
    {"name": "long", "pipeline_parallel_size": 2, "tensor_parallel_size": 2, "node_pool": "gpu"} | GPUS
)
APART = FakeSpec.model_validate(
    {
        "name": "apart",
        "engine": "fake",
        "replicas": 2,
        "spread": "require",
        "num_cpus": 1,
        "script": {"token_s": 0.02, "output_tokens": 20},
    }
)
CALLERS = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "labels": {"pool": "head"}},
    )
    for pool in POOLS:
        resources = {name: amount for name, amount in pool.node_resources().items() if ":" in name}
        for _ in range(pool.max_nodes):
            nodes.add_node(
                num_cpus=pool.cpus,
                num_gpus=pool.accelerator.count if pool.accelerator else 0,
                resources=resources,
                labels={"pool": pool.name},
            )
    ray.init(address=nodes.address, namespace="serve", log_to_driver=False)
    serve.start(proxy_location="Disabled")
    try:
        yield nodes
    finally:
        serve.shutdown()
        shut_down()
        nodes.shutdown()


def topology() -> Topology:
    found = live.topology(POOLS)
    assert found is not None
    return found


def planned(*specs: FakeSpec) -> Placement:
    return place([model_service(spec, POOLS, None) for spec in specs], topology())


def deploy(*specs: FakeSpec) -> None:
    for spec in specs:
        application = bind(spec, Path(), drain_s=0.0, node_pools=pools_of(spec, POOLS))
        serve.run(application, name=spec.name, route_prefix=None)


def pools_by_service(placement: Placement) -> dict[str, Counter[str]]:
    """How many replicas of each service the plan has on each pool."""
    pool_of = {node.name: node.pool or "" for node in placement.topology.nodes}
    found: dict[str, Counter[str]] = {}
    for placed in placement.placed:
        found.setdefault(placed.service, Counter())[pool_of[placed.nodes[0]]] += 1
    return found


def running() -> dict[str, list[str]]:
    """By service, the nodes of its replicas, as Serve tells of them."""
    return {deployed.name: list(deployed.nodes) for deployed in live.deployed() if deployed.nodes}


def pool_of(node_id: str) -> str:
    (labels,) = [node["Labels"] for node in ray.nodes() if node["NodeID"].startswith(node_id)]
    return str(labels["pool"])


def wait_for(holds: Callable[[], bool], what: str) -> None:
    deadline = monotonic() + WAIT_S
    while not holds():
        assert monotonic() < deadline, what
        asyncio.run(asyncio.sleep(0.2))


def test_replicas_land_where_the_plan_says(cluster: Cluster) -> None:
    specs = [PAIR.model_copy(update={"replicas": 2}), APART]
    placement = planned(*specs)
    assert placement.unplaced == {}
    deploy(*specs)
    landed = running()
    assert {name: Counter(map(pool_of, nodes)) for name, nodes in landed.items()} == pools_by_service(
        placement
    )
    assert len(set(landed["model-apart"])) == 2, "no two on one node"
    assert len(set(landed["model-pair"])) == 2, "each fills a node"
    groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    assert [len(set(group["bundles_to_node_id"].values())) for group in groups] == [1, 1], "TP inside a node"


def test_what_runs_is_known_and_what_a_change_would_do(cluster: Cluster) -> None:
    runs = [each for each in live.deployed() if each.name == "model-apart"]

    def change(spec: FakeSpec) -> str:
        wanted = live.to_be_deployed(deployment_of(spec, 0.0, node_pools=pools_of(spec, POOLS)))
        (found,) = changes(runs, [wanted])
        return found.kind

    assert change(APART) == "unchanged"
    assert change(APART.model_copy(update={"replicas": 3})) == "scaled"
    assert change(APART.model_copy(update={"script": {"token_s": 1}})) == "restarted"
    assert change(APART.model_copy(update={"spread": "prefer"})) == "restarted"


def test_stages_of_a_pipeline_go_to_different_nodes(cluster: Cluster) -> None:
    serve.delete(PAIR.name)
    placement = planned(LONG)
    assert len(set(placement.placed[0].nodes)) == 2
    wait_for(lambda: "model-pair" not in running(), "the pair still runs")
    deploy(LONG)
    (group,) = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    on = Counter(group["bundles_to_node_id"].values())
    assert sorted(on.values()) == [2, 2], "two workers that share every layer on each of two nodes"
    assert {pool_of(node) for node in on} == {"gpu"}


def test_what_cannot_be_placed_is_refused_and_nothing_is_deployed(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(
        "models:\n"
        "  - {name: wide, engine: fake, accelerator_type: A100, tensor_parallel_size: 4, node_pool: gpu}\n"
        "  - {name: fat, engine: fake, num_cpus: 3}\n"
        "node_pools:\n"
        "  - {name: cpu, cpus: 2, nodes: 3}\n"
        "  - {name: gpu, cpus: 2, nodes: 2, accelerator: {type: A100, count: 2}}\n"
    )
    with pytest.raises(ConfigError) as refused:
        build(BuildArguments(config=file))
    assert str(refused.value) == (
        "this does not fit on the live cluster:\n"
        "  models.wide: it needs 4 GPUs (A100) on one node for tensor_parallel_size 4; the largest node of "
        "pool gpu has 2; take tensor_parallel_size 2 with pipeline_parallel_size 2\n"
        "  models.fat: it needs 3 CPUs on one node; the largest node that it may run on has 2 CPUs"
    )
    assert set(running()) == {"model-apart", "model-long"}


def test_models_on_parts_of_gpus_share_the_gpus_of_one_node(cluster: Cluster) -> None:
    half = {"replicas": 2, "num_gpus": 0.5, "node_pool": "gpu"} | GPUS
    halves = [FakeSpec.model_validate({"name": name} | half) for name in ("embed", "rerank")]
    serve.delete(LONG.name)
    wait_for(lambda: "model-long" not in running(), "the pipeline still runs")
    placement = planned(PAIR, *halves)
    assert placement.unplaced == {}
    more = halves[0].model_copy(update={"name": "more", "replicas": 1})
    assert sum(planned(PAIR, *halves, more).unplaced.values()) == 1, "no GPU has another half"
    deploy(PAIR, *halves)
    landed, pools = running(), pools_by_service(placement)
    assert {name: Counter(map(pool_of, landed[name])) for name in pools} == pools
    (shared,) = {*landed["model-embed"], *landed["model-rerank"]}
    assert shared not in landed["model-pair"], "which fills the other node"
    for spec in (PAIR, *halves):
        serve.delete(spec.name)


async def calls_while(pool: HandlePool, work: Callable[[], None]) -> Counter[str]:
    """How the calls end that callers make without a pause while `work` is done, every second one streamed."""
    ended: Counter[str] = Counter()
    over = asyncio.Event()

    async def caller(number: int) -> None:
        while not over.is_set():
            got: Batch = []
            try:
                await keep(pool.generate(chat(model="apart", tenant="t", stream=number % 2 == 0)), got)
                ended["answered"] += 1
            except ClusterError as error:
                ended[f"{'cut' if got else 'failed'}: {type(error).__name__}"] += 1

    callers = [asyncio.create_task(caller(number)) for number in range(CALLERS)]
    try:
        await asyncio.to_thread(work)
    finally:
        over.set()
        await asyncio.gather(*callers)
    return ended


def test_the_loss_of_a_node_cuts_streams_alone_and_is_repaired_on_another(cluster: Cluster) -> None:
    before = set(running()["model-apart"])
    (lost,) = [node for node in cluster.worker_nodes if node.node_id.startswith(min(before))]

    def repaired() -> bool:
        now = set(running().get("model-apart", ()))
        alive = {node["NodeID"][:8] for node in ray.nodes() if node["Alive"]}
        return len(now) == 2 and now <= alive and bool(now - before)

    def lose() -> None:
        cluster.remove_node(lost, allow_graceful=False)
        wait_for(repaired, "the replica was not started again")

    handle = serve.get_deployment_handle("model-apart", "apart")
    ended = asyncio.run(
        calls_while(HandlePool(model_info(APART), handle, token_counter(APART, Path())), lose)
    )
    assert ended["answered"] > CALLERS
    assert ended["cut: ReplicaLost"] <= CALLERS // 2
    assert set(ended) <= {"answered", "cut: ReplicaLost"}, "what had not begun to answer goes elsewhere"
    assert Counter(map(pool_of, running()["model-apart"])) == {"cpu": 2}
    left = with_pools(live.nodes(), POOLS, "what is left")
    assert place([model_service(APART, POOLS, None)], left).unplaced == {}, "as a plan would have it"
