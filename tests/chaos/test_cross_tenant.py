"""Row 11: one tenant's probes at what others keep: contexts, runs, responses, answers to idempotency keys.

What is another tenant's is answered, to the byte, as what there is not.
"""

from __future__ import annotations

import asyncio

from tests.chaos.client import client
from tests.chaos.figures import report, times
from tests.e2e.system import RunningSystem
from tests.serve_apps.probes import CANARY, Difference, differences, plant, probes, replayed

PROBES = 5_000
OWNERS = 8
STEPS = "steps"


def test_what_is_another_tenants(system: RunningSystem) -> None:
    spy_key, _ = system.key()
    owners = [system.key()[0] for _ in range(OWNERS)]
    made = list(probes("smollm2", STEPS))
    rounds = max(1, round(times(PROBES) / OWNERS / len(made)))

    async def probe(number: int, owner: str) -> tuple[list[Difference], bool]:
        async with client(system, owner) as own, client(system, spy_key) as spy:
            planted = await plant(own, "smollm2", STEPS, {"subject": CANARY}, number)
            leaks = [each for _ in range(rounds) for each in await differences(spy, planted, made)]
            again = await replayed(spy, "smollm2", planted)
            for path in ("responses/" + planted.names["response"], "contexts/" + planted.names["context"]):
                assert (await own.get(f"/v1/{path}")).status_code == 200, "the spy deleted it"
            return leaks, again

    async def all_of_them() -> list[tuple[list[Difference], bool]]:
        return await asyncio.gather(*(probe(number, owner) for number, owner in enumerate(owners)))

    told = asyncio.run(all_of_them())
    leaks = [each for found, _ in told for each in found]
    report(
        11,
        "cross-tenant probes",
        probes=OWNERS * rounds * len(made),
        leaks=len(leaks),
        answers_replayed=sum(again for _, again in told),
    )
    assert leaks == []
    assert not any(again for _, again in told)
