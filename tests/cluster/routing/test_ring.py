"""Homes of sessions: even, the same everywhere, and hardly moved by a replica that comes or goes."""

from __future__ import annotations

from collections import Counter

from cluster.routing.facts import ReplicaName
from cluster.routing.ring import Ring

NAMES = [ReplicaName(f"r{number}") for number in range(10)]
SESSIONS = [f"session {number}" for number in range(2_000)]


def homes(names: list[ReplicaName]) -> dict[str, ReplicaName | None]:
    ring = Ring()
    ring.replace(names)
    return {session: ring.home(session) for session in SESSIONS}


def test_nobody_is_at_home_where_there_is_no_replica() -> None:
    assert set(homes([]).values()) == {None}


def test_the_order_of_replicas_does_not_matter() -> None:
    assert homes(NAMES) == homes(NAMES[::-1])


def test_homes_are_the_same_in_every_process() -> None:
    ring = Ring()
    ring.replace(NAMES)
    assert [ring.home(session) for session in ("a", "b", "c")] == ["r8", "r4", "r6"]


def test_shares_are_about_even() -> None:
    shares = Counter(homes(NAMES).values())
    assert len(shares) == 10
    assert max(shares.values()) < 2 * len(SESSIONS) / 10


def test_a_replica_that_goes_moves_its_own_sessions_only() -> None:
    before, after = homes(NAMES), homes(NAMES[1:])
    moved = {session for session in SESSIONS if before[session] != after[session]}
    assert moved == {session for session in SESSIONS if before[session] == "r0"}
