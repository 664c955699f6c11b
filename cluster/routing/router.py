"""The request router of model pools: Serve's seam, with a `RoutingPolicy` behind it.

    choose_replicas ──► policy.choose ──► [a], [b], [c]     Serve asks a; if it is full b; then c; then waits
                        policy.sent(a)                      and asks here again

One router is in each process that calls the pool. A booking is made when a replica is chosen, because calls
that are made at once are routed before the first of them is accepted; it ends with the call (`beside`).
"""

from __future__ import annotations

import time
from random import Random
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from cluster.routing.beside import Beside
from cluster.routing.facts import Booking, ReplicaFacts, ReplicaName, RoutingPolicy
from cluster.routing.policy import TokenRouting

PATH = f"{__name__}.PoolRouter"
"""What a deployment names."""


class PoolRouter(RequestRouter):  # type: ignore[misc]
    """Routes calls that have a `Beside`; others, as for a status, go to the shorter queue of two."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._random = Random()  # noqa: S311 - it spreads load, no more
        self._policy: RoutingPolicy = TokenRouting(self._random)
        self._ids: dict[ReplicaName, ReplicaID] = {}
        self._told: dict[ReplicaName, dict[str, Any]] = {}
        """The last that each replica has said of itself."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Said by Serve when replicas come, go, or have said something of themselves."""
        super().update_replicas(replicas)
        self._ids = {_name(each.replica_id): each.replica_id for each in replicas}
        self._policy.replicas(self._ids)
        told, self._told = self._told, {}
        for each in replicas:
            name, stats = _name(each.replica_id), each.routing_stats
            if stats and stats != told.get(name):
                self._policy.told(name, ReplicaFacts(**stats), time.monotonic())
            self._told[name] = stats

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """One replica a rank, the best first."""
        beside = None
        if pending_request is not None:
            # Else Serve would ask again and again without a pause while all are full.
            pending_request.routing_context.should_backoff = True
            beside = _beside(pending_request)
        if len(candidate_replicas) < 2 or beside is None:
            return [self._random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        facts = beside.facts()
        found = [self._ids.get(name) for name in self._policy.choose(facts, time.monotonic())]
        ranks = [[self._replicas[one]] for one in found if one is not None and one in self._replicas]
        if not ranks:  # the best have just died
            return [self._random.sample(candidate_replicas, 2)]
        beside.booked(self._policy.sent(facts, _name(ranks[0][0].replica_id)), self._lost)
        return ranks

    def on_request_routed(
        self,
        pending_request: PendingRequest,
        replica_id: ReplicaID,
        result: Any,  # noqa: ARG002
    ) -> None:
        """Said by Serve when a replica has accepted the call, which need not be the first that was named.

        It has said then how many calls it has. Those that this process had there when it sent this one are
        its own; by now some of them may have ended.
        """
        beside, name = _beside(pending_request), _name(replica_id)
        if beside is None or (booking := beside.booking) is None:
            return
        if booking.replica != name:
            booking = self._policy.sent(beside.facts(), name)
            beside.booked(booking, self._lost)
        calls = self.replica_queue_len_cache.get(replica_id)
        if calls is not None:
            self._policy.told_calls(name, max(0, calls - booking.calls), time.monotonic())

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Said by Serve when it finds a replica dead."""
        super().on_replica_actor_died(replica_id)
        self._policy.failed(_name(replica_id), time.monotonic())

    def on_replica_actor_unavailable(self, replica_id: ReplicaID) -> None:
        """Said by Serve when a replica does not answer."""
        super().on_replica_actor_unavailable(replica_id)
        self._policy.failed(_name(replica_id), time.monotonic())

    def _lost(self, booking: Booking) -> None:
        """A replica died over a call that it had accepted. Serve has it asked before it is used again."""
        replica_id = self._ids.get(booking.replica)
        if replica_id is not None:
            self.on_replica_actor_unavailable(replica_id)

    def _fulfill_next_pending_request(
        self, replica: RunningReplica, request_metadata: Any | None = None
    ) -> None:
        """Gives the replica to the call that it was chosen for.

        Serve finds that by an id which calls made for one request share, as those of a run do: all but the
        first of them would wait for ever. The metadata are each call's own.
        """
        for pending in self._pending_requests_to_fulfill:
            if pending.metadata is request_metadata:
                if not pending.future.done():
                    self._cancel_routing_task_for_pending_request(pending)
                    self._record_queue_wait_time(pending)
                    pending.future.set_result(replica)
                    self._remove_pending_request_from_indices(pending)
                return


def _name(replica_id: ReplicaID) -> ReplicaName:
    return ReplicaName(replica_id.unique_id)


def _beside(pending: PendingRequest) -> Beside | None:
    arguments = pending.args
    return arguments[1] if len(arguments) > 1 and isinstance(arguments[1], Beside) else None
