"""What goes beside a call: facts for its router, nothing for its replica, and a booking that always ends."""

from __future__ import annotations

import asyncio
import pickle
import threading

from cluster.messages import Embed, Generate, Message, Sampling
from cluster.routing.beside import Beside
from cluster.routing.facts import Booking, ReplicaName, Work


def call(**fields: object) -> Generate:
    text = "word " * 200
    defaults = {"messages": [Message("user", text)], "tenant": "t"}
    return Generate("id", "m", 40, 0.0, **defaults | fields)  # type: ignore[arg-type]


def ignored(booking: Booking) -> None: ...


def test_a_replica_is_given_nothing() -> None:
    beside = Beside(call())
    assert pickle.loads(pickle.dumps(beside)) is None
    assert len(pickle.dumps(beside)) < 100


def test_facts_are_those_that_were_counted() -> None:
    facts = Beside(call(prompt_tokens=200, expected_tokens=10, sampling=Sampling(n=2))).facts()
    assert (facts.prompt_tokens, facts.output_tokens, facts.session) == (200, 20, "")
    assert len(facts.blocks) == 3
    assert facts.ends[2] * facts.tokens_per_unit < 200


def test_what_nobody_has_counted_is_estimated() -> None:
    facts = Beside(call()).facts()
    assert 240 < facts.prompt_tokens < 260
    assert facts.output_tokens == 40
    assert Beside(Embed("id", "m", ["x" * 40, "y" * 60], 0.0)).facts()[:2] == (25, 0)


def test_sessions_of_two_tenants_are_two() -> None:
    one, other = (Beside(call(session="s", tenant=tenant)).facts() for tenant in ("a", "b"))
    assert one.session
    assert one.session != other.session


async def test_a_booking_ends_with_the_call() -> None:
    work, beside = Work(), Beside(call())
    beside.end()
    beside.booked(Booking(ReplicaName("a"), work, 10, 5), ignored)  # its caller has left meanwhile
    assert (work.calls, work.waiting, work.coming) == (0, 0, 0)
    beside = Beside(call())
    beside.booked(Booking(ReplicaName("a"), work, 10, 5), ignored)
    beside.answering()
    assert (work.calls, work.waiting, work.coming) == (1, 0, 5)
    beside.end()
    beside.end()
    assert (work.calls, work.waiting, work.coming) == (0, 0, 0)


async def test_another_replica_takes_the_place_of_the_first() -> None:
    first, second, beside = Work(), Work(), Beside(call())
    lost: list[Booking] = []
    beside.booked(Booking(ReplicaName("a"), first, 10, 5), lost.append)
    beside.booked(Booking(ReplicaName("b"), second, 10, 5), lost.append)
    assert (first.calls, second.calls) == (0, 1)
    beside.lost()
    assert [booking.replica for booking in lost] == ["b"]


async def test_bookings_change_on_the_loop_of_their_router() -> None:
    work, beside = Work(), Beside(call())
    threads: list[int] = []

    class Told(Booking):
        def end(self) -> None:
            threads.append(threading.get_ident())
            super().end()

    async def booked() -> int:
        beside.booked(Told(ReplicaName("a"), work, 10, 5), ignored)
        return threading.get_ident()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    router = asyncio.run_coroutine_threadsafe(booked(), loop)
    there = await asyncio.wrap_future(router)
    beside.end()
    loop.call_soon_threadsafe(loop.stop)
    await asyncio.to_thread(thread.join)
    assert threads == [there]
    assert work.calls == 0
    loop.close()
    beside.end()  # its router is gone


async def test_ending_what_was_never_routed_is_nothing() -> None:
    beside = Beside(call())
    beside.answering()
    beside.lost()
    beside.end()
    assert beside.booking is None
