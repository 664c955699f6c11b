"""Journals in the store: any number of runners, in any number of processes, share them.

Whatever must be decided at once is decided by a script of `runtime/store/lua` on the store's clock; where the
keys are says `runtime.durability.places`. The set of leases spans all tenants, so that looking for abandoned
runs costs two round trips and no scan. It is a hint: it is written beside the runs and not with them, each
renewal writes it again, and whoever finds it wrong mends it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from uuid import uuid4

import structlog

from cluster.messages import Usage
from runtime.durability.bounds import Shelf, Told
from runtime.durability.journal import Head, Journal, Kept, Taken
from runtime.durability.loading import Stored, by_path
from runtime.durability.model import KEEP_S, LEASE_S, MAX_RUNS, Checkpoint, Lease, Numbered
from runtime.durability.patience import Pauses, patiently
from runtime.durability.places import LEASES, PARTS, Places, member, places
from runtime.durability.standing import refused, too_many
from runtime.durability.writing import PUT, StoredJournal, Terms
from runtime.errors import RunError, UnknownRun
from runtime.events import RunFailed
from runtime.plan import ExecutionPlan, encode_plan
from runtime.request import RunRequest, encode_request
from runtime.sealing import NOTHING_SEALED, Sealing
from runtime.store.client import Reply, Script, ScriptCall, Store, Word
from runtime.store.errors import CommandFailed, StoreError

PATIENCE_S = 5.0
"""How long a store that is out is asked again before a run begins or is taken."""
FOLLOW_PATIENCE_S = 30.0
"""The same while a run is followed."""
FOLLOW_PAGE = 8
"""Entries of events of one round trip."""
DUE_PAGE = 100
"""Runs that are looked at in one search for abandoned ones."""
PLANS = 64
"""Plans whose packed form is kept in the process."""

_BEGIN = Script("clock", "journal", "journal_begin")
_TAKE = Script("clock", "journal", "journal_take")
_RENEW = Script("clock", "journal", "journal_renew")
_DUE = Script("clock", "leases_due")
_MEND = Script("leases_mend")

log = structlog.get_logger(__name__)


class StoredJournals:
    """A `runtime.durability.journal.Journals` for one runner."""

    def __init__(
        self,
        store: Store,
        owner: str,
        *,
        lease_s: float = LEASE_S,
        keep_s: float = KEEP_S,
        most: int = MAX_RUNS,
        sealing: Sealing = NOTHING_SEALED,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`owner` names the runner; `keep_s` counts from the last word of a run, `most` runs of one tenant.

        `clock` gives Unix seconds in place of the store's clock. For tests.
        """
        self._store = store
        self._owner = owner
        self._terms = Terms(int(lease_s * 1000), int(keep_s * 1000), clock)
        self._most = most
        self._sealing = sealing
        self._plans: OrderedDict[int, tuple[ExecutionPlan, bytes]] = OrderedDict()
        """By identity, which lasts as long as they are here."""

    async def begin(
        self, request: RunRequest, plan: ExecutionPlan, done: Sequence[Checkpoint] = ()
    ) -> Journal:
        seal = self._sealing.of(request.tenant)
        packed = self._packed(plan)
        digest = seal.digest(packed).hex()
        keys = places(request.tenant, request.run_id, digest)
        sealed = seal.close(encode_request(request), keys.run, "request")
        claim = self._claim()
        word = await self._begin(request, keys, [claim, sealed, digest, b""])
        if word == b"plan":
            word = await self._begin(request, keys, [claim, sealed, digest, seal.close(packed, keys.plan)])
        if word == b"exists":
            raise refused(request.run_id, "exists")
        if word == b"full":
            raise too_many(self._most)
        lease = Lease(request.tenant, request.run_id, 1)
        journal = StoredJournal(self._store, keys, seal, self._terms, lease, request.deadline)
        await self._hand_over(journal, done)
        return journal

    async def take(self, tenant: str, run_id: str, *, deadline: float | None = None) -> Taken:
        keys, seal = places(tenant, run_id), self._sealing.of(tenant)
        wanted = "" if deadline is None else repr(deadline)
        arguments = [*self._terms.of_run(run_id), self._claim(), wanted]

        async def take() -> Reply:
            hint, taken = await self._store.run_many(
                [self._hint([member(tenant, run_id)]), ScriptCall(_TAKE, keys, arguments)]
            )
            return _checked(hint, taken)[1]

        word, *found = await patiently(take, time.time() + PATIENCE_S)
        if word != b"ok":
            raise refused(run_id, word.decode())
        token, number, kept, size, packed, digest, until = found
        keys = places(tenant, run_id, digest.decode())
        stored = Stored(self._store, keys, seal, run_id)
        lease = Lease(tenant, run_id, int(token))
        journal = StoredJournal(self._store, keys, seal, self._terms, lease, time.time() + PATIENCE_S)
        told = Told(int(number), int(kept), int(size))
        try:
            request = stored.request(packed, until)
            plan, entries = await stored.plan(), await stored.entries()
        except UnknownRun as error:
            journal.go_on(told, Shelf(), {})
            log.warning("run_unreadable", tenant=tenant, run=run_id, reason=error.message)
            await journal.append([RunFailed(error.as_failure(), Usage(), 0.0)], [])
            raise
        except StoreError:
            await journal.close()
            raise
        shelf = Shelf()
        shelf.add(entries)
        journal = StoredJournal(self._store, keys, seal, self._terms, lease, request.deadline)
        journal.go_on(told, shelf, by_path(entries))
        return Taken(journal, request, plan)

    async def head(self, tenant: str, run_id: str) -> Head:
        return (await self._head(tenant, run_id))[0]

    async def read(self, tenant: str, run_id: str) -> Kept:
        (request, state, attempt), digest = await self._head(tenant, run_id)
        stored = Stored(self._store, places(tenant, run_id, digest), self._sealing.of(tenant), run_id)
        return Kept(request, await stored.plan(), state, attempt, by_path(await stored.entries()))

    async def abandoned(self) -> Sequence[tuple[str, str]]:
        now, due = await self._store.run(_DUE, [LEASES], [self._terms.now, DUE_PAGE])
        members = [each.decode() for each in due[::2]]
        runs = [(tenant, run_id) for tenant, run_id in (each.split(" ") for each in members)]
        looks = [("HMGET", places(*run).run, "state", "number", "expires") for run in runs]
        found = _checked(*(await self._store.execute_many(looks) if looks else []))
        abandoned, wrong = [], []
        for run, name, score, (state, number, expires) in zip(runs, members, due[1::2], found, strict=True):
            goes_on = state == b"running"
            if goes_on and int(expires) > now:
                wrong += [name, score, expires]
            elif goes_on and int(number):
                abandoned.append(run)
            else:
                wrong += [name, score, ""]
        if wrong:
            await self._store.run(_MEND, [LEASES], wrong)
        return abandoned

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        if not leases:
            return []
        calls = [
            ScriptCall(
                _RENEW,
                places(lease.tenant, lease.run_id),
                [*self._terms.of_run(lease.run_id), lease.token],
            )
            for lease in leases
        ]
        members = [member(lease.tenant, lease.run_id) for lease in leases]
        *held, _hint = _checked(*await self._store.run_many([*calls, self._hint(members)]))
        return [lease for lease, still in zip(leases, held, strict=True) if not still]

    async def follow(
        self, tenant: str, run_id: str, after: int = 0, *, wait: bool = True
    ) -> AsyncGenerator[list[Numbered], None]:
        keys, pauses = places(tenant, run_id), Pauses()
        stored = Stored(self._store, keys, self._sealing.of(tenant), run_id)
        while True:
            number, state, entries = await self._look(keys, after)
            if not number:
                raise refused(run_id, "unknown")
            seen = [(last, packed) for last, packed in entries if last <= number]
            more = [
                each for last, packed in seen for each in stored.events(last, packed) if each.number > after
            ]
            all_seen = len(seen) < FOLLOW_PAGE
            after = max(after, number) if all_seen else seen[-1][0]
            if more:
                pauses.start_over()
                yield more
            if all_seen and (not wait or state != b"running"):
                return
            if all_seen and not more:
                await pauses.take()

    async def _begin(self, request: RunRequest, keys: Places, arguments: Sequence[Word]) -> bytes:
        head = self._terms.of_run(request.run_id)
        tail: list[Word] = [self._most, keys.run.removesuffix(request.run_id), " ".join(PARTS)]

        async def begin() -> bytes:
            call = ScriptCall(_BEGIN, keys, [*head, *arguments, *tail])
            hint = self._hint([member(request.tenant, request.run_id)])
            word: bytes = _checked(*await self._store.run_many([hint, call]))[1]
            return word

        return await patiently(begin, min(request.deadline, time.time() + PATIENCE_S))

    async def _hand_over(self, journal: StoredJournal, done: Sequence[Checkpoint]) -> None:
        try:
            await journal.append([], done)
        except (RunError, StoreError):
            await journal.close()
            raise
        journal.done = {each.path: each for each in done}

    async def _head(self, tenant: str, run_id: str) -> tuple[Head, str]:
        """And the digest of its plan."""
        keys = places(tenant, run_id)
        fields = ("number", "state", "token", "request", "plan", "deadline")
        number, state, token, packed, digest, until = await self._store.execute("HMGET", keys.run, *fields)
        if not int(number or 0):
            raise refused(run_id, "unknown")
        request = Stored(self._store, keys, self._sealing.of(tenant), run_id).request(packed, until)
        return Head(request, state.decode(), int(token)), digest.decode()

    async def _look(self, keys: Places, after: int) -> tuple[int, bytes, list[tuple[int, bytes]]]:
        """Number of the last event, what the run is, and entries behind `after` by their last numbers."""
        page = ("XRANGE", keys.events, f"({after}-0", "+", "COUNT", FOLLOW_PAGE)

        async def look() -> list[Reply]:
            return await self._store.execute_many([("HMGET", keys.run, "number", "state"), page])

        (number, state), entries = _checked(*await patiently(look, time.time() + FOLLOW_PATIENCE_S))
        return int(number or 0), state, [(int(id_.split(b"-")[0]), fields[1]) for id_, fields in entries]

    def _hint(self, members: Sequence[str]) -> ScriptCall:
        """Notes that leases are held from now on."""
        return ScriptCall(PUT, [LEASES], [self._terms.now, self._terms.lease_ms, *members])

    def _claim(self) -> str:
        """Another one for each call that is not a repetition."""
        return f"{self._owner} {uuid4().hex}"

    def _packed(self, plan: ExecutionPlan) -> bytes:
        if id(plan) not in self._plans:
            self._plans[id(plan)] = plan, encode_plan(plan)
            if len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        return self._plans[id(plan)][1]


def _checked(*replies: Reply | CommandFailed) -> list[Reply]:
    """Raises the first refusal."""
    for reply in replies:
        if isinstance(reply, CommandFailed):
            raise reply
    return list(replies)
