"""A Ray of our own for tests, without Serve or with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import ray
from ray import serve

ENDED_S = 120.0


@contextmanager
def local_ray() -> Iterator[None]:
    """Two cores and no dashboard, gone at the end."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        shut_down()


@asynccontextmanager
async def local_serve() -> AsyncIterator[None]:
    """Two cores and a Serve whose deployments are reached by handles, gone at the end."""
    await asyncio.to_thread(ray.init, address="local", num_cpus=2, include_dashboard=False)
    try:
        await asyncio.to_thread(serve.start, proxy_location="Disabled")
        yield
        await asyncio.to_thread(serve.shutdown)
    finally:
        await asyncio.to_thread(shut_down)


def shut_down() -> None:
    """Returns when all processes are gone. Ray itself waits a second for each, which a busy machine needs."""
    node = ray._private.worker._global_node  # no public name has them
    processes = [info.process for infos in node.all_processes.values() for info in infos] if node else []
    ray.shutdown()
    for process in processes:
        process.wait(ENDED_S)
