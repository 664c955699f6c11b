"""How the arms of all cases are timed: often, one thing after the other, medians of batches."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

from benchmarks.cases import Measured

Work = Callable[[int], Awaitable[object]]
"""Does it all once, and gives what came of it; its argument is another number each time."""


class Took(NamedTuple):
    """What one node took, in microseconds."""

    wall_us: float
    cpu_us: float
    """Of this process."""
    came_of_it: object


async def timed(work: Work, *, nodes: int, times: int, warm_up: int = 3) -> Took:
    """The median over `times` of doing what `nodes` nodes do."""
    last: object = None
    for number in range(warm_up):
        last = await work(number)
    walls, cpus = [], []
    for number in range(warm_up, warm_up + times):
        wall, cpu = perf_counter(), time.process_time()
        await work(number)
        walls.append(perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Took(median(walls) / nodes * 1e6, median(cpus) / nodes * 1e6, last)


def measured(ours: Took, raw: Took | None = None) -> Measured:
    """Its figures; beside those of its raw counterpart also what it takes more."""
    figures = {"node_us": ours.wall_us, "cpu_us": ours.cpu_us}
    if raw is not None:
        figures["overhead_us"] = ours.wall_us - raw.wall_us
    return Measured(figures, ours.came_of_it)
