"""Who gives way where all that is wanted would cost too much.

A run is only as fast as the scarcest pool on its path. So every pool has one replica, and its least, and then
the next goes to the pool of whose wish the smallest share is met:

    wanted: a 8 at $1, b 4 at $2, 8 dollars in all      a 1 of 8, b 1 of 4 = $3
    a 1/8 → 2/8 ($4), 2/8 and b 1/4 → the dearer first, b 2/4 ($6), a → 3/8 ($7), 4/8 ($8)      a 4, b 2
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from cluster.autoscaling.model import PoolScale

_ROUNDING = 1e-9


def first(pool: PoolScale, wanted: int) -> int:
    """What a pool has, whatever it costs."""
    return min(wanted, max(1, pool.least))


def within(wanted: Mapping[str, int], pools: Mapping[str, PoolScale], most: float | None) -> dict[str, int]:
    """What is wanted, or as much of it as costs no more than `most` dollars an hour. Where what every pool
    has costs that already, it is that."""
    cost = sum(count * pools[name].per_hour for name, count in wanted.items())
    if most is None or cost <= most + _ROUNDING:
        return dict(wanted)
    given = {
        name: first(pools[name], count) if pools[name].per_hour else count for name, count in wanted.items()
    }
    left = most - sum(count * pools[name].per_hour for name, count in given.items()) + _ROUNDING
    waiting = [_place(name, given, wanted, pools) for name in given if given[name] < wanted[name]]
    heapq.heapify(waiting)
    while waiting:
        name = heapq.heappop(waiting)[-1]
        if pools[name].per_hour > left:
            continue
        left -= pools[name].per_hour
        given[name] += 1
        if given[name] < wanted[name]:
            heapq.heappush(waiting, _place(name, given, wanted, pools))
    return given


def _place(
    name: str, given: Mapping[str, int], wanted: Mapping[str, int], pools: Mapping[str, PoolScale]
) -> tuple[float, float, str]:
    """The smaller, the sooner: by the share that is met, then the dearer, then by name."""
    return given[name] / wanted[name], -pools[name].per_hour, name
