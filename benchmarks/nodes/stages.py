"""Functions of a given weight that pipelines name, each once as a stage with a process of its own."""

from __future__ import annotations

import asyncio
from time import thread_time

from graphs.functions import function


def spin(number: int, work_ms: float) -> int:
    """Python that takes so long on a core of its own; longer where threads share the interpreter."""
    until = thread_time() + work_ms / 1e3
    while thread_time() < until:
        pass
    return number + 1


@function(effects="pure", num_cpus=0.1)
def stage(number: int, work_ms: float) -> int:
    return spin(number, work_ms)


@function(effects="idempotent")
async def waits(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1
