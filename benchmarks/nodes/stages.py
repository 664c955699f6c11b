"""Functions of a given weight that pipelines name, each once as a stage with a process of its own."""

from __future__ import annotations

import asyncio
from time import perf_counter

from graphs.functions import function


def spin(number: int, work_ms: float) -> int:
    """Keeps a core busy with Python for so long."""
    until = perf_counter() + work_ms / 1e3
    while perf_counter() < until:
        pass
    return number + 1


@function(effects="pure", num_cpus=0.1)
def stage(number: int, work_ms: float) -> int:
    return spin(number, work_ms)


@function(effects="idempotent")
async def waits(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1
