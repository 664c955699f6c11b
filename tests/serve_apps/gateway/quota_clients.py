"""Who asks for quota, and with which limits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from runtime.store.client import Store
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import QuotaLedger, Reservation, records_key
from serve_apps.gateway.refusals import QuotaExceeded

NONE = Limits()


def key_with(requests: int | None = None, tokens: int | None = None, name: str = "k1") -> Caller:
    return Caller("acme", name, allowance=Allowance(Limits(requests, tokens)))


def at_all_levels(
    organisation: Limits = NONE,
    team: Limits = NONE,
    key: Limits = NONE,
    name: str = "k1",
    team_name: str = "t1",
) -> Caller:
    return Caller(
        *("acme", name, team_name),
        organisation_allowance=Allowance(organisation),
        team_allowance=Allowance(team),
        allowance=Allowance(key),
    )


@dataclass
class Client:
    """Who asks a ledger with a key, and numbers the reservations."""

    ledger: QuotaLedger
    key: Caller
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def reserve(self, tokens: int) -> Reservation:
        return await self.ask(Demand("m", tokens, 0))

    async def ask(self, demand: Demand) -> Reservation:
        return await self.ledger.reserve(self.key, demand, reservation_id=f"r{next(self.numbers)}")

    async def refused(self, tokens: int) -> QuotaExceeded:
        with pytest.raises(QuotaExceeded) as caught:
            await self.reserve(tokens)
        return caught.value


async def records(store: Store, tenant: str = "acme") -> list[bytes]:
    return [fields[1] for _, fields in await store.execute("XRANGE", records_key(tenant), "-", "+")]
