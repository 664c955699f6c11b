"""The calls in front of one engine: which may go in, which wait, and which are sent away.

    offer ─► waits, by tenant ─► admit ─► in the engine ─► observe (output so far) ─► end
      └ Overloaded                 └ late: its deadline can no longer be met
    at_once ─► in the engine, where nobody waits and there is room

Between tenants the least served goes first (`counters`), among the calls of a tenant the one that is due
first (`urgency`). What may go in is bounded by the engine's sequences, by its KV cache (prompts with the
output that is likely, so that the engine preempts nobody), and by the prompt tokens that it has still to
read, so that a long prompt does not stand before a call that came later and is more urgent. Calls that
can wait are held back from more than half of an engine while an urgent one of their tenant is in it: each
step that reads their prompts would make it wait for its next token.

All times are Unix seconds, passed in. `offer` and `admit` cost O(log waiting) for each call, and O(tenants)
while the least served is held back.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from itertools import count
from typing import Any, Literal

import msgspec

from cluster.admission.counters import VirtualCounters
from cluster.admission.urgency import patience_s, policy_of
from cluster.errors import Overloaded
from cluster.messages import AdmissionState, TenantState

INPUT_PRICE = 1
OUTPUT_PRICE = 2
"""Of a token, to counters: an engine makes output for several times as long as it reads (section 5.1)."""
ROOM_SHARE = 4
"""A tenant may have so many times the room waiting that is left. However many flood the queue, some is left
for the next one: dynamic thresholds (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998)."""
HOLD_S = 0.25
"""How long calls that can wait are held back after an urgent one of their tenant has left: the next step of
its run is on the way (Iyer and Druschel, "Anticipatory scheduling", SOSP 2001)."""
HOLD_ABOVE = 0.5
"""Part of an engine's sequences up to which calls that can wait go in beside urgent ones all the same: a step
takes hardly longer for many sequences than for few."""
HOLD_SHARE = 0.5
"""Of the time from a call's coming until it is due, for which it is held back at the most."""
SURELY = 0.5
"""Part of the time that a call is likely to need without which it surely cannot be done."""
LEAST_SAMPLE = 8
"""Tokens from which on the time between two is measured."""
SMOOTHING = 0.1
"""Weight of the newest observation in what is measured."""
RETRY_AFTER_S = 2.0
"""Told before anything was measured."""
MAX_RETRY_AFTER_S = 60.0
RATE_S = 10.0
"""Of service, over which its rate is measured."""
MAX_TENANTS_TOLD = 20


class Capacity(msgspec.Struct, frozen=True):
    """What one engine and the queue before it have room for."""

    sequences: int
    """In the engine at once."""
    kv_tokens: int | None = None
    """Of prompts and outputs together. None is no bound."""
    reading_tokens: int | None = None
    """Of prompts that the engine has still to read. One prompt may be longer. None is no bound, as reading is
    not in the way of other calls."""
    waiting: int = 1024
    """Calls that may wait."""


class Ask(msgspec.Struct, frozen=True):
    """What a call wants of the engine."""

    deadline: float
    tenant: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    """That is likely, of all sequences together."""
    sequences: int = 1
    priority: int = 0
    weight: float = 1.0
    """Of the tenant: twice the weight is twice the service where both wait."""
    whole: bool = False
    """Whether it is worth nothing before its last token."""


class Ticket:
    """One call, from its offer to its end."""

    __slots__ = (
        "ask",
        "at",
        "booked",
        "due",
        "first_tokens",
        "order",
        "output_tokens",
        "owner",
        "reading",
        "state",
    )

    def __init__(self, ask: Ask, now: float, order: int) -> None:
        self.ask = ask
        self.at = now
        """When it came; once it is in the engine, when its first output was seen."""
        self.order = order
        self.due = 0.0
        self.state: Literal["waiting", "running", "late", "ended"] = "waiting"
        self.output_tokens = 0
        self.first_tokens = 0
        """Output that was there when the first was seen."""
        self.booked = 0
        """KV tokens."""
        self.reading = 0
        """Prompt tokens that the engine has still to read."""
        self.owner: Any = None
        """Of whoever offered it."""


class _Line:
    """The calls of one tenant that wait, by when they are due. Cancelled ones are passed over."""

    __slots__ = ("calls", "heap")

    def __init__(self) -> None:
        self.calls = 0
        self.heap: list[tuple[float, int, Ticket]] = []

    def first(self) -> Ticket:
        while self.heap[0][2].state != "waiting":
            heapq.heappop(self.heap)
        return self.heap[0][2]

    def add(self, ticket: Ticket) -> None:
        heapq.heappush(self.heap, (ticket.due, ticket.order, ticket))
        self.calls += 1

    def drop(self) -> None:
        self.calls -= 1
        if len(self.heap) > 2 * self.calls + 16:
            self.heap = [each for each in self.heap if each[2].state == "waiting"]
            heapq.heapify(self.heap)


class AdmissionQueue:
    """The queue of one engine."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.counters = VirtualCounters()
        self.waiting = 0
        self.running = 0
        """Calls in the engine."""
        self.sequences = 0
        self.kv_tokens = 0
        """Booked."""
        self.reading_tokens = 0
        self.blocked: Literal["", "sequences", "kv", "reading", "held"] = ""
        """Why the next call was not let in, when somebody last looked."""
        self._lines: dict[str, _Line] = {}
        self._orders = count()
        self._waiting_tokens = 0
        self._urgent: Counter[str] = Counter()
        """Urgent calls in the engine, of each tenant."""
        self._held: deque[tuple[float, str]] = deque()
        """Until when calls that can wait are held back after an urgent one has left, and whose."""
        self._token_s = 0.0
        """Seconds between two output tokens of a call."""
        self._rate = 0.0
        """Tokens a second."""
        self._served = 0
        self._rate_since: float | None = None
        self._wait_s = 0.0
        self._admitted = self._refused = self._late = 0

    def at_once(self, ask: Ask, now: float) -> Ticket | None:
        """A call comes, and goes in if none waits and there is room, as after `offer` and `admit`. None: it
        has to be offered."""
        if self.waiting or now + self._surely_s(ask) >= ask.deadline or self._bound(ask):
            return None
        ticket = self._ticket(ask, now)
        if self._is_held(ticket, now):
            return None
        self.counters.visit(ask.tenant, ask.weight)
        self._let_in(ticket, now)
        self.blocked = ""
        return ticket

    def offer(self, ask: Ask, now: float) -> Ticket:
        """A call comes. It waits until `admit` names it. Raises `Overloaded`."""
        line = self._lines.get(ask.tenant)
        if (0 if line is None else line.calls) >= ROOM_SHARE * (self.capacity.waiting - self.waiting):
            self._refused += 1
            raise Overloaded("too many calls wait for this model", retry_after_s=self.retry_after_s(now))
        ticket = self._ticket(ask, now)
        if line is None:
            line = self._lines[ask.tenant] = _Line()
            self.counters.join(ask.tenant, ask.weight)
        line.add(ticket)
        self.waiting += 1
        self._waiting_tokens += ask.prompt_tokens + ask.output_tokens
        return ticket

    def admit(self, now: float) -> list[Ticket]:
        """The calls that go into the engine now, and those that are `late` and go nowhere."""
        decided: list[Ticket] = []
        while (ticket := self.following(now)) is not None:
            if now + self._surely_s(ticket.ask) >= ticket.ask.deadline:
                ticket.state = "late"
                self._late += 1
            else:
                self.blocked = self._bound(ticket.ask)
                if self.blocked:
                    return decided
                self._let_in(ticket, now)
            self._left_line(ticket)
            decided.append(ticket)
        self.blocked = "held" if self.waiting else ""
        return decided

    def following(self, now: float) -> Ticket | None:
        """The call that goes next, when there is room. None: none waits that is not held back."""
        tenant = self.counters.least()
        if tenant is None:
            return None
        first = self._lines[tenant].first()
        if not self._is_held(first, now):
            return first
        others = [each for line in self._lines.values() if not self._is_held(each := line.first(), now)]
        return min(others, key=lambda each: self.counters.of(each.ask.tenant), default=None)

    def observe(self, ticket: Ticket, output_tokens: int, now: float) -> None:
        """Output of a call in the engine so far, in all: it is charged, and its prompt has been read."""
        more = output_tokens - ticket.output_tokens
        if not more or ticket.state != "running":
            return
        if not ticket.output_tokens:
            ticket.at, ticket.first_tokens = now, output_tokens
        ticket.output_tokens = output_tokens
        self.counters.charge(ticket.ask.tenant, OUTPUT_PRICE * more)
        self._served += more
        self._read(ticket)
        used = ticket.ask.prompt_tokens + output_tokens
        if used > ticket.booked:  # more than was likely
            self.kv_tokens += used - ticket.booked
            ticket.booked = used

    def end(self, ticket: Ticket, now: float) -> None:
        """A call leaves, from wherever it is and for whatever reason."""
        state, ticket.state = ticket.state, "ended"
        if state == "waiting":
            self._left_line(ticket)
        elif state == "running":
            self._read(ticket)
            self.running -= 1
            self.sequences -= self._places(ticket.ask)
            self.kv_tokens -= ticket.booked
            if policy_of(ticket.ask.priority) < 0:
                self._urgent[ticket.ask.tenant] -= 1
                if not self._urgent[ticket.ask.tenant]:
                    del self._urgent[ticket.ask.tenant]
                self._let_go(now)
                self._held.append((now + HOLD_S, ticket.ask.tenant))
            self._measure(ticket, now)

    def retry_after_s(self, now: float) -> float:
        """When it is worth coming back: in the time in which half of what waits is served."""
        self._measure_rate(now)
        if not self._rate:
            return RETRY_AFTER_S
        return max(1.0, min(MAX_RETRY_AFTER_S, self._waiting_tokens / 2 / self._rate))

    def state(self, now: float) -> AdmissionState:
        """What it is like now. Of the tenants that wait those with most calls are told."""
        self._measure_rate(now)
        longest = heapq.nlargest(MAX_TENANTS_TOLD, self._lines.items(), key=lambda item: item[1].calls)
        tenants = [
            TenantState(name, line.calls, now - line.first().at, self.counters.of(name))
            for name, line in longest
        ]
        return AdmissionState(
            sequences=self.sequences,
            max_sequences=self.capacity.sequences,
            kv_tokens=self.kv_tokens,
            max_kv_tokens=self.capacity.kv_tokens or 0,
            reading_tokens=self.reading_tokens,
            waiting=self.waiting,
            max_waiting=self.capacity.waiting,
            waiting_tokens=self._waiting_tokens,
            waiting_tenants=len(self._lines),
            wait_s=self._wait_s,
            tokens_per_s=self._rate,
            admitted=self._admitted,
            refused=self._refused,
            late=self._late,
            tenants=tenants,
        )

    def _ticket(self, ask: Ask, now: float) -> Ticket:
        ticket = Ticket(ask, now, next(self._orders))
        ticket.due = min(now + patience_s(ask.priority), ask.deadline - ask.output_tokens * self._token_s)
        return ticket

    def _bound(self, ask: Ask) -> Literal["", "sequences", "kv", "reading"]:
        """What keeps the call out. Into an engine that is empty any call may go."""
        room, places = self.capacity, self._places(ask)
        if not self.running:
            return ""
        if self.sequences + places > room.sequences:
            return "sequences"
        if room.kv_tokens is not None and self.kv_tokens + self._kv(ask) > room.kv_tokens:
            return "kv"
        reading = self.reading_tokens
        if room.reading_tokens is not None and reading and reading + ask.prompt_tokens > room.reading_tokens:
            return "reading"
        return ""

    def _is_held(self, ticket: Ticket, now: float) -> bool:
        """Whether the call can wait, and urgent ones of its tenant make it."""
        ask = ticket.ask
        if self.capacity.reading_tokens is None or policy_of(ask.priority) <= 0:
            return False
        if self.sequences + self._places(ask) <= HOLD_ABOVE * self.capacity.sequences:
            return False
        if now - ticket.at >= HOLD_SHARE * (ticket.due - ticket.at):
            return False
        self._let_go(now)
        return ask.tenant in self._urgent or any(tenant == ask.tenant for _, tenant in self._held)

    def _let_go(self, now: float) -> None:
        """Forgets urgent calls that have left long enough ago."""
        while self._held and self._held[0][0] <= now:
            self._held.popleft()

    def _let_in(self, ticket: Ticket, now: float) -> None:
        ask = ticket.ask
        if policy_of(ask.priority) < 0:
            self._urgent[ask.tenant] += 1
        self._wait_s += SMOOTHING * (now - ticket.at - self._wait_s)
        ticket.state = "running"
        ticket.booked, ticket.reading = self._kv(ask), ask.prompt_tokens
        self.running += 1
        self.sequences += self._places(ask)
        self.kv_tokens += ticket.booked
        self.reading_tokens += ticket.reading
        self._admitted += 1
        self.counters.charge(ask.tenant, INPUT_PRICE * ask.prompt_tokens)

    def _left_line(self, ticket: Ticket) -> None:
        ask = ticket.ask
        line = self._lines[ask.tenant]
        line.drop()
        self.waiting -= 1
        self._waiting_tokens -= ask.prompt_tokens + ask.output_tokens
        if not line.calls:
            del self._lines[ask.tenant]
            self.counters.leave(ask.tenant)

    def _read(self, ticket: Ticket) -> None:
        if ticket.reading:
            self.reading_tokens -= ticket.reading
            self._served += ticket.reading
            ticket.reading = 0

    def _places(self, ask: Ask) -> int:
        return min(ask.sequences, self.capacity.sequences)

    def _kv(self, ask: Ask) -> int:
        """Tokens that the call is likely to take; never more than there are, or it would wait forever."""
        likely = ask.prompt_tokens + ask.output_tokens
        return likely if self.capacity.kv_tokens is None else min(likely, self.capacity.kv_tokens)

    def _surely_s(self, ask: Ask) -> float:
        """Seconds that the call needs at the least before it is of any use."""
        each = ask.output_tokens / max(1, ask.sequences)
        return SURELY * each * self._token_s if ask.whole else 0.0

    def _measure(self, ticket: Ticket, now: float) -> None:
        each = (ticket.output_tokens - ticket.first_tokens) / max(1, ticket.ask.sequences)
        if each >= LEAST_SAMPLE:
            sample = (now - ticket.at) / each
            self._token_s += (SMOOTHING if self._token_s else 1.0) * (sample - self._token_s)
        self._measure_rate(now)
        if not self.running:
            self._rate_since = None

    def _measure_rate(self, now: float) -> None:
        """Of service, while something waits: the rest of the time it says what is asked, not what can be."""
        if self._rate_since is None or now - self._rate_since >= 1.0:
            if self._rate_since is not None and (self.waiting or not self._rate):
                passed = now - self._rate_since
                sample = self._served / passed
                self._rate += (min(1.0, passed / RATE_S) if self._rate else 1.0) * (sample - self._rate)
            self._rate_since, self._served = now, 0
