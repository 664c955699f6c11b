"""All cases of nodes, over one Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.cases import Case, CaseSample, measure_cases
from benchmarks.nodes import chains, durable, hops, local


async def measure(
    *, fake: bool, repeats: int, wanted: Sequence[str], progress: Callable[[CaseSample], None]
) -> list[Case]:
    """`wanted` are beginnings of the names of cases; none for all. `fake` leaves out what needs Ray.

    Raises `MeasurementFailed`, and what the arms raise.
    """
    async with durable.case() as kept:
        cases = [*local.cases(), kept]
        if not fake:
            cases += [await hops.case(), *await chains.cases()]
        cases = sorted(cases, key=lambda case: case.name)
        cases = [case for case in cases if not wanted or case.name.startswith(tuple(wanted))]
        await measure_cases(cases, repeats, progress)
        return cases
