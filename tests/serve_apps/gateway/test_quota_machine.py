"""Any order of calls, ends and clock steps, against a model: never over a limit, and never too strict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runtime.store.client import Store
from serve_apps.gateway.applied import applied_limits
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Demand, Price, Spent
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import LEASE_S, Observed, QuotaLedger, Reservation, Totals
from serve_apps.gateway.refusals import QuotaExceeded
from tests.serve_apps.clock import Clock

REMEMBERED_MS = 600_000
"""How long what expired can still be settled."""
PRICE = Price(input=700, output=1300, second=500_000)
ORGANISATION = Allowance(
    Limits(tokens_per_day=700, tokens_per_minute=150), models={"m": Limits(concurrent_requests=3)}
)
TEAM = Allowance(Limits(concurrent_requests=4, money_per_month=4_000))
KEY = Allowance(
    Limits(requests_per_minute=6, tokens_per_minute=100), models={"m": Limits(tokens_per_minute=60)}
)
CALLERS = [
    Caller(*("acme", name, team), organisation_allowance=ORGANISATION, team_allowance=TEAM, allowance=KEY)
    for name, team in (("k1", "t1"), ("k2", "t1"), ("k3", "t2"))
]

amounts = st.integers(0, 60)


@dataclass
class Count:
    """What is taken of one limit, as the reference model sees it."""

    kind: str
    charges: list[Charge] = field(default_factory=list)
    period: tuple[int, ...] = ()
    taken: int = 0
    """In the period; of calls that run, how many do."""
    unsure: int = 0
    """More that may be held in the period, for orphans that may be forgotten by now."""

    def of_period(self, now: float) -> tuple[tuple[int, ...], int]:
        """The day or month, and what is taken of it. One that has begun does not end by a step back."""
        date = datetime.fromtimestamp(int(now * 1000) / 1000, UTC)
        day = () if self.kind == "money_per_month" else (date.day,)
        period = (date.year, date.month, *day)
        return (self.period, self.taken) if self.period >= period else (period, 0)

    def begin(self, now: float) -> None:
        """What is taken from now on is of this period."""
        period, taken = self.of_period(now)
        if period != self.period:
            self.unsure = 0
        self.period, self.taken = period, taken

    def within(self, seconds: float, elapsed: float) -> int:
        return sum(each.amount for each in self.charges if each.at > elapsed - seconds - 0.002)


@dataclass
class Charge:
    """An amount taken of a limit. `at` is true elapsed time: the clock's steps back are not in it."""

    count: Count
    at: float
    amount: int
    period: tuple[int, ...] = ()


@dataclass
class Call:
    """One admitted call."""

    caller: Caller
    reservation: Reservation
    expires_ms: int
    charges: list[Charge]
    seen: Spent = Spent(0)
    state: str = "open"


class QuotaMachine(RuleBasedStateMachine):
    """Two ledgers over one store. Minutes are known to the model up to their buckets: what is admitted must
    fit into any 60 s, what is refused must not fit into 65 s and the steps back. All else is exact."""

    open_store: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = self.open_store()
        self.clock = Clock()
        self.elapsed = 0.0
        self.stepped_back = 0.0
        self.ledgers = [
            QuotaLedger(self.store, clock=self.clock, monotonic=lambda: self.elapsed) for _ in range(2)
        ]
        self.counts: dict[str, Count] = {}
        self.calls: list[Call] = []
        self.totals = {caller.id: dict.fromkeys(Totals.__struct_fields__, 0) for caller in CALLERS}
        self.number = 0
        self.runner.run(self.store.execute("FLUSHALL"))

    @rule(
        caller=st.sampled_from(CALLERS),
        model=st.sampled_from(["m", "x"]),
        tokens=st.tuples(amounts, amounts),
        least=st.none() | amounts,
        seconds=st.floats(0, 2),
        ledger=st.integers(0, 1),
    )
    def reserve(
        self,
        caller: Caller,
        model: str,
        tokens: tuple[int, int],
        least: int | None,
        seconds: float,
        ledger: int,
    ) -> None:
        if least is not None:
            least = min(least, tokens[1])
        demand = Demand(model, *tokens, least, PRICE, seconds)
        self.number += 1
        call = self.ledgers[ledger].reserve(caller, demand, reservation_id=f"r{self.number}")
        try:
            reservation = self.runner.run(call)
        except QuotaExceeded as refusal:
            assert self.refuses(caller, demand, tokens[1] if least is None else least)
            self.check_hint(caller, demand, refusal)
            return
        granted = reservation.granted.output_tokens
        assert (tokens[1] if least is None else least) <= granted <= tokens[1]
        assert granted == tokens[1] or self.refuses(caller, demand, granted + 1)
        expires_ms = int(self.clock.now * 1000) + int(LEASE_S * 1000)
        self.calls.append(Call(caller, reservation, expires_ms, self.taken(caller, demand, granted)))
        self.add(caller, requests=1, open=1, reserved=tokens[0] + granted)

    def check_hint(self, caller: Caller, demand: Demand, refusal: QuotaExceeded) -> None:
        """What a refusal says would fit is the most that would."""
        if refusal.fits is not None:
            assert self.refuses(caller, demand, int(refusal.fits.split()[-1]) + 1)

    def taken(self, caller: Caller, demand: Demand, output: int) -> list[Charge]:
        """Charges the model. Fails where that is over a limit."""
        charges = []
        for limit in applied_limits(caller, demand.model):
            count = self.counts.setdefault(limit.key, Count(limit.kind))
            amount = needs(limit.kind, demand, output)
            if "minute" in limit.kind:
                assert count.within(60, self.elapsed) + amount <= limit.most
                count.charges.append(charge := Charge(count, self.elapsed, amount))
            else:
                if limit.kind != "concurrent_requests":
                    count.begin(self.clock.now)
                assert count.taken + amount <= limit.most
                count.taken += amount
                charge = Charge(count, self.elapsed, amount, count.period)
            charges.append(charge)
        return charges

    def refuses(self, caller: Caller, demand: Demand, output: int) -> bool:
        """Whether a limit may refuse so much."""
        for limit in applied_limits(caller, demand.model):
            count = self.counts.setdefault(limit.key, Count(limit.kind))
            if "minute" in limit.kind:
                taken = count.within(65 + self.stepped_back, self.elapsed)
            elif limit.kind == "concurrent_requests":
                taken = count.taken
            else:
                period, taken = count.of_period(self.clock.now)
                taken += count.unsure if period == count.period else 0
            if taken + needs(limit.kind, demand, output) > limit.most:
                return True
        return False

    def close(self, call: Call, spent: Spent, requests: int) -> None:
        self.stop_running(call)
        self.correct(call, spent, requests)
        self.tell(call, spent, requests)
        call.state = "closed"

    def expire(self, call: Call) -> None:
        """Its limits go on to hold all that it had reserved."""
        self.stop_running(call)
        self.tell(call, call.seen, 1)
        call.state = "expired"

    def stop_running(self, call: Call) -> None:
        for charge in call.charges:
            if charge.count.kind == "concurrent_requests":
                charge.count.taken -= 1

    def correct(self, call: Call, spent: Spent, requests: int, sure: bool = True) -> None:
        """What was held becomes what was used; where that is not sure, it may be held all the same."""
        finals = {"requests_per_minute": requests, "money_per_month": spent.nanodollars}
        for charge in call.charges:
            count, final = charge.count, finals.get(charge.count.kind, spent.tokens)
            if count.kind == "concurrent_requests":
                continue
            if not charge.period:
                charge.amount = final
                continue
            count.begin(self.clock.now)
            if count.period == charge.period:
                count.taken -= charge.amount - final
                count.unsure += 0 if sure else charge.amount - final

    def tell(self, call: Call, spent: Spent, requests: int) -> None:
        reserved = call.reservation.granted.tokens
        self.add(call.caller, open=-1, reserved=-reserved, requests=requests - 1)
        self.add(call.caller, tokens=spent.tokens, nanodollars=spent.nanodollars)

    def add(self, caller: Caller, **changes: int) -> None:
        for name, change in changes.items():
            self.totals[caller.id][name] += change

    def drawn(self, data: st.DataObject, *states: str) -> Call:
        return data.draw(st.sampled_from([call for call in self.calls if call.state in states]))

    def forget(self) -> None:
        """Whether calls that expired long ago can still be settled, and whether their limits still hold what
        they had reserved, is not known to the model: that ends when a gateway looks."""
        now_ms = int(self.clock.now * 1000)
        for call in self.calls:
            if call.state == "expired" and call.expires_ms <= now_ms:
                self.correct(call, call.seen, 1, sure=False)
                call.state = "forgotten"

    def spent(self, data: st.DataObject, call: Call) -> Spent:
        granted = call.reservation.granted
        most = granted.fixed_nanodollars + granted.output_nanodollars
        return Spent(data.draw(st.integers(0, granted.tokens)), data.draw(st.integers(0, most)))

    @precondition(lambda self: any(call.state in ("open", "expired") for call in self.calls))
    @rule(data=st.data(), ledger=st.integers(0, 1))
    def settle(self, data: st.DataObject, ledger: int) -> None:
        call = self.drawn(data, "open", "expired")
        spent = self.spent(data, call)
        assert self.runner.run(self.ledgers[ledger].settle(call.reservation, spent))
        if call.state == "open":
            self.close(call, spent, 1)
            return
        seen = call.seen
        self.correct(call, spent, 1)
        self.add(call.caller, tokens=spent.tokens - seen.tokens)
        self.add(call.caller, nanodollars=spent.nanodollars - seen.nanodollars)
        call.state = "closed"

    @precondition(lambda self: any(call.state == "open" for call in self.calls))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        call = self.drawn(data, "open")
        assert self.runner.run(self.ledgers[0].release(call.reservation))
        self.close(call, Spent(0), 0)

    @precondition(lambda self: any(call.state == "closed" for call in self.calls))
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        call = self.drawn(data, "closed")
        assert not self.runner.run(self.ledgers[0].settle(call.reservation, Spent(1)))

    @precondition(lambda self: any(call.state == "open" for call in self.calls))
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        call = self.drawn(data, "open")
        call.seen = self.spent(data, call)
        observed = Observed(call.reservation.reservation_id, call.seen)
        assert self.runner.run(self.ledgers[1].renew("acme", [observed])) == []
        call.expires_ms = int(self.clock.now * 1000) + int(LEASE_S * 1000)

    @rule(ledger=st.integers(0, 1))
    def settle_due(self, ledger: int) -> None:
        now_ms = int(self.clock.now * 1000)
        due = [call for call in self.calls if call.state == "open" and call.expires_ms <= now_ms]
        settled = self.runner.run(self.ledgers[ledger].settle_due())
        # A tenant is looked at when its first reservation was to expire: never later, but not at once where
        # the clock stepped back since.
        assert settled in {len(due)} | ({0} if self.stepped_back else set())
        for call in due if settled else ():
            self.expire(call)
            call.expires_ms = now_ms + REMEMBERED_MS
            self.add(call.caller, expired=1)

    @rule(seconds=st.floats(0, 30) | st.floats(0, 300))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.elapsed += seconds
        self.forget()

    @rule(hours=st.integers(1, 30))
    def pass_hours(self, hours: int) -> None:
        self.settle_due(0)
        for call in self.calls:
            if call.state == "expired":
                self.correct(call, call.seen, 1, sure=False)
                call.state = "forgotten"
        self.pass_time(hours * 3600.0)

    @rule(seconds=st.floats(0, 300))
    def step_back(self, seconds: float) -> None:
        self.clock.now -= seconds
        self.stepped_back += seconds

    @invariant()
    def ledger_is_exact(self) -> None:
        for caller in CALLERS:
            found = self.runner.run(self.ledgers[0].totals(caller.tenant, caller.id))
            assert found == Totals(**self.totals[caller.id])

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()


def needs(kind: str, demand: Demand, output: int) -> int:
    match kind:
        case "tokens_per_minute" | "tokens_per_day":
            return demand.input_tokens + output
        case "money_per_month":
            return demand.fixed_nanodollars - (-output * demand.price.output // 1000)
        case _:
            return 1


def test_any_order_of_calls_and_clock_steps(store_url: str) -> None:
    class Machine(QuotaMachine):
        @staticmethod
        def open_store() -> Store:
            return Store.connect(store_url, timeout_s=5)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
