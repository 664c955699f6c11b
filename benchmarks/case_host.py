"""The process that measures cases: `python -m benchmarks.case_host`, told an `Order` in a line of JSON.

It says a line of JSON for every sample, then one with what the cases are. Ray Serve reads its environment
once, at import: so this is a process of its own, started with `serve_host.environment` (but for fakes).
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import ray
from ray import serve

from benchmarks.cases import Case, CaseSample, Described
from benchmarks.graphs.measure import measure as measure_graphs
from benchmarks.nodes.measure import measure as measure_nodes

LOGICAL_CPUS = 16
"""That Ray believes to have: many more processes than cores wait here while others are measured."""


class Order(msgspec.Struct, frozen=True):
    """What to measure."""

    scenario: str
    repeats: int
    cases: tuple[str, ...] = ()
    """Beginnings of their names. Empty: all."""
    fake: bool = False
    temp_dir: str = ""
    """For Ray's own files. Short."""


class Took(msgspec.Struct, frozen=True, tag="took"):
    """A line for every sample."""

    sample: CaseSample


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The last line."""

    cases: list[Described]


class Broke(msgspec.Struct, frozen=True, tag="broke"):
    """The last line, where there was no end: what else is said then is what it left behind."""

    traceback: str


class Measure(Protocol):
    """All cases of a scenario."""

    def __call__(
        self, *, fake: bool, repeats: int, wanted: Sequence[str], progress: Callable[[CaseSample], None]
    ) -> Awaitable[list[Case]]: ...


MEASURES: Mapping[str, Measure] = {"graphs": measure_graphs, "nodes": measure_nodes}
_encode = msgspec.json.Encoder().encode


def say(line: Took | Done | Broke) -> None:
    sys.stdout.buffer.write(_encode(line) + b"\n")
    sys.stdout.buffer.flush()


async def work(order: Order) -> None:
    """Measures, and says what came of it."""
    try:
        cases = await MEASURES[order.scenario](
            fake=order.fake,
            repeats=order.repeats,
            wanted=order.cases,
            progress=lambda sample: say(Took(sample)),
        )
    except Exception:
        say(Broke(traceback.format_exc()))
        raise
    finally:
        if not order.fake:
            await asyncio.to_thread(serve.shutdown)  # while there is a loop for its handles
    say(Done([Described.of(case) for case in cases]))


def main() -> None:
    order = msgspec.json.decode(sys.stdin.readline(), type=Order)
    if order.fake:
        asyncio.run(work(order))
        return
    ray.init(
        address="local",
        num_cpus=LOGICAL_CPUS,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=order.temp_dir,
    )
    try:
        serve.start(proxy_location="Disabled")
        asyncio.run(work(order))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
