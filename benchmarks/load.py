"""The load generator: a closed loop over raw asyncio sockets, in a process of its own.

It reads one `Plan` as a line of JSON, connects and warms up, writes the line `started`, measures, and
writes one `Outcome` as a line of JSON.
"""

from __future__ import annotations

import asyncio
import math
import resource
import sys
import time

import msgspec
import uvloop

from benchmarks.http1 import Answer, Connection, wire_bytes
from benchmarks.scenario import HttpRequest


class Plan(msgspec.Struct, frozen=True):
    """What to send, for how long."""

    request: HttpRequest
    connections: int
    warmup_s: float
    seconds: float
    timeout_s: float = 30.0
    """An answer later than this counts as failed and ends its connection."""


class Spread(msgspec.Struct, frozen=True):
    """Order statistics of durations, in milliseconds."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Nearest-rank percentiles; zeros when there is nothing to rank."""
        if not values:
            return cls()
        ranked = sorted(values)
        return cls(*(ranked[math.ceil(share * len(ranked)) - 1] for share in (0.50, 0.95, 0.99)))


class Outcome(msgspec.Struct, frozen=True):
    """What came back. Latencies are of successful requests that started while it measured."""

    completed: int
    failed: int
    first_failure: str
    """What the first failed request got, cut to 300 characters; empty when none failed."""
    elapsed_s: float
    """From the first request to the last answer."""
    latency_ms: Spread
    first_byte_ms: Spread
    """Until the first byte of the body."""
    client_cpu_s: float


class Tally:
    """What the clients of one phase measured together."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.first_byte_ms: list[float] = []
        self.failed = 0
        self.first_failure = ""
        self.last_answer = 0.0

    def succeed(self, sent: float, first_byte: float, done: float) -> None:
        self.latencies_ms.append((done - sent) * 1e3)
        self.first_byte_ms.append((first_byte - sent) * 1e3)
        self.last_answer = max(self.last_answer, done)

    def fail(self, why: str) -> None:
        self.failed += 1
        self.first_failure = self.first_failure or why[:300]
        self.last_answer = max(self.last_answer, time.perf_counter())


class Client:
    """One connection of the loop, kept over the phases and made again when the server ends it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._wire = wire_bytes(plan.request)
        self._needle = plan.request.must_contain.encode()
        self._connection: Connection | None = None

    async def run(self, until: float, tally: Tally) -> None:
        """Send until the clock passes `until`; the request under way then is still counted."""
        while time.perf_counter() < until:
            sent = time.perf_counter()
            try:
                answer = await self._ask()
            except (OSError, ValueError, TimeoutError) as error:
                self.close()
                tally.fail(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.01)  # a dead server must not be hammered
                continue
            if answer.status == self._plan.request.status and self._needle in answer.body:
                tally.succeed(sent, answer.first_byte, time.perf_counter())
            else:
                tally.fail(f"{answer.status}: {answer.body.decode(errors='replace')}")
            if answer.close:
                self.close()

    async def _ask(self) -> Answer:
        if self._connection is None:
            loop = asyncio.get_running_loop()
            request = self._plan.request
            _, self._connection = await loop.create_connection(Connection, request.host, request.port)
        return await self._connection.ask(self._wire, self._plan.timeout_s)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def measure(plan: Plan) -> Outcome:
    """Warm up, say `started` on stdout, and measure."""
    clients = [Client(plan) for _ in range(plan.connections)]
    warm = Tally()
    until = time.perf_counter() + plan.warmup_s
    await asyncio.gather(*(client.run(until, warm) for client in clients))

    tally = Tally()
    sys.stdout.write("started\n")
    sys.stdout.flush()
    cpu = _cpu_s()
    begin = time.perf_counter()
    await asyncio.gather(*(client.run(begin + plan.seconds, tally) for client in clients))
    for client in clients:
        client.close()
    return Outcome(
        completed=len(tally.latencies_ms),
        failed=tally.failed,
        first_failure=tally.first_failure,
        elapsed_s=max(tally.last_answer - begin, 1e-9),
        latency_ms=Spread.of(tally.latencies_ms),
        first_byte_ms=Spread.of(tally.first_byte_ms),
        client_cpu_s=_cpu_s() - cpu,
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    outcome = uvloop.run(measure(plan))
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")


if __name__ == "__main__":
    main()
