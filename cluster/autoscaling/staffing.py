"""How many servers a load needs so that few calls wait for long.

Up to `EXACT` exactly, after Erlang (1917): of c servers with the offered load R, which is the rate of calls
times the seconds that each takes, all are busy for the share C(c, R) of calls, and

    P(wait > t) = C(c, R) · exp(-(c - R) · t / S)

Above that by the square-root rule of Halfin and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential
Servers" (Operations Research 29(3), 1981): c = R + β·√R, with C = 1 / (1 + β·Φ(β)/φ(β)).

    R = 2, t = 0, at most 5 % wait     C(5, 2) = 0.060, C(6, 2) = 0.018     6 servers
"""

from __future__ import annotations

import math
from statistics import NormalDist

EXACT = 100.0
"""Load, in calls at once."""
_STEPS = 30
_MOST_BETA = 8.0
_NORMAL = NormalDist()


def servers(load: float, wait: float, late: float) -> float:
    """The fewest servers with which no more than the share `late` of calls waits longer than `wait`.

    Args:
        load: calls at once, if none waited. Not negative.
        wait: in times of a call.
        late: above 0, at most 1.
    """
    if load <= 0:
        return 0.0
    return _exactly(load, wait, late) if load <= EXACT else _roughly(load, wait, late)


def _exactly(load: float, wait: float, late: float) -> float:
    blocked, count = 1.0, 0  # Erlang's B, by its recursion
    while True:
        count += 1
        blocked = load * blocked / (count + load * blocked)
        if count > load:
            busy = blocked / (1 - load / count * (1 - blocked))
            if busy * math.exp(-(count - load) * wait) <= late:
                return float(count)


def _roughly(load: float, wait: float, late: float) -> float:
    root, low, high = math.sqrt(load), 0.0, _MOST_BETA
    for _ in range(_STEPS):
        beta = (low + high) / 2
        busy = 1 / (1 + beta * _NORMAL.cdf(beta) / _NORMAL.pdf(beta))
        low, high = (low, beta) if busy * math.exp(-beta * root * wait) <= late else (beta, high)
    return load + high * root
