"""B6, a durable agent: six steps of a call and an action each, in a process of its own, beside another one.

    none        our runner, which keeps nothing
    step        our runner, which keeps every step in the store as it happens
    restart     nothing is kept: the process is killed in its fourth call, and another begins again
    langgraph   LangGraph with its saver for SQLite: killed likewise, and another process resumes the thread
    ours        durability `step`: killed likewise, and another runner notices and goes on

The successor runs already when its predecessor is killed, so that no start of a process is measured. It is
told to begin again, or to resume; only ours is told nothing and finds out by the lease of the run. And
`cancel`: how long after a run is cancelled in mid-call the engine has nothing left of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from time import perf_counter
from typing import Any

from benchmarks.cases import Case, CaseArm, Measured, Target
from benchmarks.graphs.peer import Peer, langgraph, started
from benchmarks.graphs.session import PATIENCE_S, Session
from benchmarks.graphs.texts import text_of
from benchmarks.runner import MeasurementFailed
from runtime.events import RunFailed
from runtime.request import RunRequest

STEPS = 6
KILLED_IN = 4
"""The call in which the process is killed."""
CANCELLED_IN = 2
TASK_TOKENS = 64
ACT_S = 0.1
INTO_S = 0.5
"""How long the call that is cut off has gone on by then."""

Start = Callable[[], AbstractAsyncContextManager[Peer]]
Arm = Callable[[str], Awaitable[Measured]]


def cases(session: Session) -> list[Case]:
    """Three: never killed, killed, cancelled."""
    inputs = {"task": text_of(session.pool, TASK_TOKENS, 500), "act_s": ACT_S * session.unit_s}
    work = _Work(session, inputs)
    killed = [
        CaseArm(
            "restart", "nothing kept, begun again", work.killed(work.our_process, "none", resume=False), 3
        ),
        CaseArm("ours", "durability step, taken over", work.killed(work.our_process, "step", resume=True), 3),
    ]
    if session.peer is not None:
        arm = work.killed(work.peer_process, "step", resume=True)
        killed.insert(1, CaseArm("langgraph", "LangGraph with a SQLite saver, resumed", arm, 3))
    return [
        Case(
            "B6 durability",
            f"{STEPS} steps of a call of 24 tokens and an action of {ACT_S:g} s, undisturbed",
            [
                CaseArm("none", "nothing is kept", work.undisturbed("none")),
                CaseArm("ours", "durability step", work.undisturbed("step")),
            ],
            [Target("latency_s", "ours", ">=", 0.98, "none")],
        ),
        Case(
            "B6 killed",
            f"the same, killed (SIGKILL) in the call of step {KILLED_IN}",
            killed,
            [
                Target("recomputed_calls", "ours", "<=", 0.0),
                Target("calls", "ours", ">=", 1.4, "restart"),
            ],
        ),
        Case(
            "B6 cancelled",
            "the same, cancelled in mid-call, until the engine has nothing left of it",
            [
                CaseArm(
                    "asyncio", "a task that is cancelled, by hand", _cancelled(session, _by_hand(session)), 3
                ),
                CaseArm(
                    "ours", "a run that is cancelled", _cancelled(session, _by_runner(session, inputs)), 3
                ),
            ],
            [Target("abort_s", "ours", "<=", 1.0)],
            ("abort_s",),
        ),
    ]


class _Work:
    """The agent in processes of its own."""

    def __init__(self, session: Session, inputs: dict[str, Any]) -> None:
        self._session = session
        self._inputs = inputs

    def our_process(self) -> AbstractAsyncContextManager[Peer]:
        return started(
            None, "benchmarks.graphs.runner_peer", str(self._session.door), self._session.store_url
        )

    def peer_process(self) -> AbstractAsyncContextManager[Peer]:
        return langgraph(self._session.door, str(self._session.folder / "langgraph.sqlite"))

    def undisturbed(self, durability: str) -> Arm:
        async def run(tenant: str) -> Measured:
            async with self.our_process() as process:
                began = perf_counter()
                outputs = await process.run("steps", tenant, self._inputs, durability=durability)
                return self._session.measured(tenant, began, outputs)

        return run

    def killed(self, start: Start, durability: str, *, resume: bool) -> Arm:
        async def run(tenant: str) -> Measured:
            account = self._session.pool.account(tenant)
            async with AsyncExitStack() as stack:
                first = await stack.enter_async_context(start())
                second = await stack.enter_async_context(start())
                if self._session.fake:
                    account.endless = KILLED_IN
                began = perf_counter()
                lost = asyncio.create_task(first.run("steps", tenant, self._inputs, durability=durability))
                await account.has_begun(KILLED_IN)
                await asyncio.sleep(INTO_S * self._session.unit_s)
                first.kill()
                died = perf_counter()
                with suppress(Exception):
                    await lost
                    raise MeasurementFailed("the process lived on")
                told = asyncio.create_task(
                    second.run("steps", tenant, self._inputs, durability=durability, resume=resume)
                )
                await account.has_begun(KILLED_IN + 1)
                went_on = perf_counter()
                measured = self._session.measured(tenant, began, await told)
            measured.figures["stood_still_s"] = went_on - died
            measured.figures["recomputed_calls"] = account.calls - (STEPS + 1.0)
            return measured

        return run


Going = Callable[[str], Awaitable[Callable[[], bool]]]
"""Begins the work under a tenant; gives what cancels it."""


def _cancelled(session: Session, begin: Going) -> Arm:
    async def run(tenant: str) -> Measured:
        account = session.pool.account(tenant)
        if session.fake:
            account.endless = CANCELLED_IN
        cancel = await begin(tenant)
        await account.has_begun(CANCELLED_IN)
        await asyncio.sleep(INTO_S * session.unit_s)
        if not await session.pool.busy():
            raise MeasurementFailed(f"{tenant} had nothing in the engine to be cancelled")
        cancelled = perf_counter()
        assert cancel()
        while await session.pool.busy():  # noqa: ASYNC110  (of another process: nothing to wait on)
            await asyncio.sleep(0.005)
        return Measured({"abort_s": perf_counter() - cancelled})

    return run


def _by_hand(session: Session) -> Going:
    async def begin(tenant: str) -> Callable[[], bool]:
        async def agent() -> None:
            for step in range(STEPS):
                await session.ask(tenant, f"step {step}", 24)

        task = asyncio.create_task(agent())
        return task.cancel

    return begin


def _by_runner(session: Session, inputs: dict[str, Any]) -> Going:
    runner = session.runner("steps")

    async def begin(tenant: str) -> Callable[[], bool]:
        request = RunRequest(f"{tenant}-run", "steps", inputs, time.time() + PATIENCE_S, tenant)

        async def read() -> None:
            async with aclosing(runner.run(request)) as events:
                *_, last = [event async for event in events]
            assert isinstance(last, RunFailed)

        reading = asyncio.create_task(read())
        keep.add(reading)
        reading.add_done_callback(keep.discard)
        return lambda: runner.cancel(tenant, request.run_id)

    keep: set[asyncio.Task[None]] = set()
    return begin
