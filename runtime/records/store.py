"""Records in the store: a hash for each run, and an index of a tenant's runs by when they began.

    cgh:{acme}:run:5f…         summary, record, attempt
    cgh:{acme}:runs            "5f… support-rag" by start
    cgh:{acme}:cancel:5f…      somebody wants the run to end

A tenant keeps its newest `most` runs, each for a while. Lists read summaries only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from runtime.records.model import RunRecord, RunStatus, RunSummary, as_of
from runtime.records.timings import TimingStore
from runtime.sealing import NOTHING_SEALED, Sealing, opened
from runtime.store.client import Script, ScriptCall, Store
from runtime.store.errors import CommandFailed
from runtime.store.naming import check_name, tenant_key

DEFAULT_KEEP_S = 24 * 3600.0
MAX_RUNS = 1_000
"""Of one tenant."""
SEARCHED_AT_ONCE = 100
"""Runs that are looked at in one round trip, where those of one status are asked for."""
CANCEL_TTL_S = 3600
"""A request to cancel is forgotten after this: longer than any run waits for its next look."""

_WRITE = Script("run_write")

_pack = msgspec.msgpack.Encoder().encode
_unpack_summary = msgspec.msgpack.Decoder(RunSummary).decode
_unpack_record = msgspec.msgpack.Decoder(RunRecord).decode


class Page(msgspec.Struct, frozen=True):
    """Some runs of a list, the newest first."""

    runs: list[RunSummary]
    more: bool
    """Whether there are older ones."""


class RunStore:
    """Keeps records of runs, and who is to be cancelled."""

    def __init__(
        self,
        store: Store,
        *,
        keep_s: float = DEFAULT_KEEP_S,
        most: int = MAX_RUNS,
        sealing: Sealing = NOTHING_SEALED,
    ) -> None:
        self._store = store
        self._timings = TimingStore(store)
        self._keep_ms = int(keep_s * 1000)
        self._most = most
        self._sealing = sealing

    async def write(self, records: Sequence[RunRecord]) -> None:
        """Writes each as a whole, over what was known of the same run, and adds up what its nodes took.

        Raises `InvalidName`, `StoreUnavailable`, and `CommandFailed` of the first that was refused.
        """
        replies = await self._store.run_many([self._write(record) for record in records])
        for reply in replies:
            if isinstance(reply, CommandFailed):
                raise reply
        await self._timings.add(records)

    async def load(self, tenant: str, run_id: str, now: float) -> RunRecord | None:
        """The record as of `now` (Unix seconds). Raises `InvalidName`, `StoreUnavailable`."""
        kept = await self._store.execute("HGET", _run_key(tenant, run_id), "record")
        packed = None if kept is None else self._opened(kept, tenant, run_id, "record")
        return None if packed is None else as_of(_unpack_record(packed), now)

    async def newest(
        self,
        tenant: str,
        limit: int,
        now: float,
        *,
        wanted: Callable[[str], bool],
        status: RunStatus | None = None,
        after: str | None = None,
    ) -> Page:
        """The newest `limit` runs of graphs that are `wanted`, of those older than the run `after`, and only
        those of one `status`.

        Raises `InvalidName`, `StoreUnavailable`.
        """
        members = await self._store.execute("ZREVRANGE", _index_key(tenant), 0, -1)
        listed = [member.decode().split(" ") for member in members]
        if after is not None:
            place = next((index for index, (run_id, _) in enumerate(listed) if run_id == after), len(listed))
            listed = listed[place + 1 :]
        chosen = [run_id for run_id, graph in listed if wanted(graph)]
        at_once = limit + 1 if status is None else max(limit + 1, SEARCHED_AT_ONCE)
        found: list[RunSummary] = []
        while chosen and len(found) <= limit:
            runs = [as_of(each, now) for each in await self._summaries(tenant, chosen[:at_once])]
            chosen = chosen[at_once:]
            found += [run for run in runs if status in (None, run.status)]
        return Page(found[:limit], more=len(found) > limit)

    async def ask_to_cancel(self, tenant: str, run_id: str) -> None:
        """Has whichever runner drives the run end it at its next look. Raises `StoreUnavailable`."""
        await self._store.execute("SET", _cancel_key(tenant, run_id), 1, "EX", CANCEL_TTL_S)

    async def cancel_no_more(self, tenant: str, run_id: str) -> None:
        """Takes a request to cancel back: the run is to go on. Raises `StoreUnavailable`."""
        await self._store.execute("DEL", _cancel_key(tenant, run_id))

    async def asked_to_cancel(self, runs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the runs (tenant and id) that somebody wants to end. Raises `StoreUnavailable`."""
        asked = list(runs)
        replies = await self._store.execute_many([("EXISTS", _cancel_key(*run)) for run in asked])
        return [run for run, reply in zip(asked, replies, strict=True) if reply == 1]

    async def _summaries(self, tenant: str, run_ids: Sequence[str]) -> list[RunSummary]:
        """Of those runs that are still there, in this order."""
        reads = [("HGET", _run_key(tenant, run_id), "summary") for run_id in run_ids]
        found = zip(run_ids, await self._store.execute_many(reads), strict=True)
        packed = [
            self._opened(kept, tenant, run_id, "summary") for run_id, kept in found if isinstance(kept, bytes)
        ]
        return [_unpack_summary(each) for each in packed if each is not None]

    def _opened(self, kept: bytes, tenant: str, run_id: str, field: str) -> bytes | None:
        return opened(self._sealing.of(tenant), kept, _run_key(tenant, run_id), field)

    def _write(self, record: RunRecord) -> ScriptCall:
        key, seal = _run_key(record.tenant, record.run_id), self._sealing.of(record.tenant)
        summary = RunSummary(**{name: getattr(record, name) for name in RunSummary.__struct_fields__})
        return ScriptCall(
            _WRITE,
            [key, _index_key(record.tenant)],
            [
                self._keep_ms,
                self._most,
                int(record.started * 1000),
                f"{record.run_id} {record.graph}",
                seal.close(_pack(summary), key, "summary"),
                seal.close(_pack(record), key, "record"),
                key.removesuffix(record.run_id),
                record.attempt,
            ],
        )


def _run_key(tenant: str, run_id: str) -> str:
    check_name("run_id", run_id)
    return tenant_key(tenant, "run", run_id)


def _index_key(tenant: str) -> str:
    return tenant_key(tenant, "runs")


def _cancel_key(tenant: str, run_id: str) -> str:
    check_name("run_id", run_id)
    return tenant_key(tenant, "cancel", run_id)
