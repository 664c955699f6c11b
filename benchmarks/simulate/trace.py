"""Calls as they arrive: conversations, fan-outs of graphs and single questions of many tenants.

Everything is decided by the seed. Prompts are lists of blocks of `BLOCK` tokens: equal numbers are equal
text, so two prompts share what their lists begin with.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from random import Random
from typing import NamedTuple

BLOCK = 64
"""Tokens."""


class SimulatedCall(NamedTuple):
    """One call."""

    at: float
    """Seconds since the start."""
    tenant: str
    session: str
    blocks: tuple[int, ...]
    output_tokens: int

    @property
    def prompt_tokens(self) -> int:
        return BLOCK * len(self.blocks)


class Mix(NamedTuple):
    """What a trace is made of."""

    calls_per_s: float
    """In all."""
    seconds: float
    """In which sessions begin."""
    tenants: int = 20
    zipf: float = 1.0
    """Tenant number k has a share of 1 / k^zipf of the sessions."""
    system_blocks: int = 8
    """That every prompt of a tenant begins with."""
    turns: int = 5
    """Of a conversation."""
    think_s: float = 15.0
    """Between two turns, on average."""
    siblings: int = 8
    """Of a fan-out, which share as many blocks again."""


OUTPUTS = (16, 32, 48, 96)
"""Tokens, equally often."""


def trace(mix: Mix, seed: int) -> list[SimulatedCall]:
    """The calls in the order of their arrival. A third of them are of each kind."""
    random, numbers = Random(seed), count()
    systems = [tuple(next(numbers) for _ in range(mix.system_blocks)) for _ in range(mix.tenants)]
    weights = [1 / (rank + 1) ** mix.zipf for rank in range(mix.tenants)]
    calls: list[SimulatedCall] = []
    third = mix.calls_per_s / 3
    for kind, rate in ((_talk, third / mix.turns), (_fan_out, third / mix.siblings), (_question, third)):
        at = random.expovariate(rate)
        while at < mix.seconds:
            tenant = random.choices(range(mix.tenants), weights)[0]
            calls += kind(mix, random, numbers, at, f"t{tenant}", systems[tenant])
            at += random.expovariate(rate)
    return sorted(calls)


def _fresh(numbers: Iterator[int], blocks: int) -> tuple[int, ...]:
    return tuple(next(numbers) for _ in range(blocks))


def _talk(
    mix: Mix, random: Random, numbers: Iterator[int], at: float, tenant: str, system: tuple[int, ...]
) -> Iterator[SimulatedCall]:
    """Each turn begins with all before it."""
    session, prompt = f"{tenant}/{next(numbers)}", system
    for _ in range(mix.turns):
        prompt += _fresh(numbers, random.randint(1, 4))
        yield SimulatedCall(at, tenant, session, prompt, random.choice(OUTPUTS))
        at += random.expovariate(1 / mix.think_s)


def _fan_out(
    mix: Mix, random: Random, numbers: Iterator[int], at: float, tenant: str, system: tuple[int, ...]
) -> Iterator[SimulatedCall]:
    """Siblings of one run, at once."""
    session, shared = f"{tenant}/{next(numbers)}", system + _fresh(numbers, mix.system_blocks)
    for _ in range(mix.siblings):
        yield SimulatedCall(at, tenant, session, shared + _fresh(numbers, 2), random.choice(OUTPUTS))


def _question(
    mix: Mix,  # noqa: ARG001 - of one shape with the others
    random: Random,
    numbers: Iterator[int],
    at: float,
    tenant: str,
    system: tuple[int, ...],
) -> Iterator[SimulatedCall]:
    yield SimulatedCall(
        at, tenant, "", system + _fresh(numbers, random.randint(1, 6)), random.choice(OUTPUTS)
    )
