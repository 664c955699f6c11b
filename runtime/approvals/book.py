"""The approvals of runs in the store: a hash for each run, a field for each node that waits.

    cgh:{acme}:approvals:5f…      review: asked, decision

A decision is written by compare-and-set, so the first one holds, whoever else decides at the same time. The
node that waits looks again and again, with growing pauses: a run may wait for minutes, in any process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, NoReturn

import msgspec

from cluster.errors import ModelUnavailable
from runtime.approvals.model import (
    MAX_APPROVALS,
    MAX_VALUE_BYTES,
    Answer,
    Approval,
    Asked,
    Decision,
    answer_of,
    fits,
    no,
)
from runtime.errors import NodeError
from runtime.store.client import Script, Store
from runtime.store.errors import StoreError, StoreUnavailable
from runtime.store.naming import check_name, tenant_key

Outcome = Literal["taken", "late", "unknown", "unfit"]
"""What comes of a decision: it holds; another came first; nobody waits for it; its value is of another
type."""

FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 1.0
GROWTH = 1.5
KEPT_S = 3600.0
"""How long a decision can be looked up after the node stopped waiting."""

_ASK = Script("approval_ask")
_CHANGE = Script("approval_change")

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Approval).decode


class ApprovalBook:
    """Keeps what is asked and what was decided."""

    def __init__(self, store: Store, *, most: int = MAX_APPROVALS) -> None:
        self._store = store
        self._most = most

    async def wait(
        self,
        tenant: str,
        run_id: str,
        asked: Asked,
        told: Callable[[], None],
        stays: Callable[[], bool] = no,
    ) -> Answer:
        """What a person says. Calls `told` once it can be decided.

        Cancelling it withdraws the question, but where it `stays`: asked again at the same time, of the same
        node, it is the same question, and may have been decided.

        Raises `NodeError` for a value that is too large to show, or too many questions of one run, and
        `ModelUnavailable` where the store cannot take the question.
        """
        packed = _pack(Approval(asked))
        if len(packed) > MAX_VALUE_BYTES:
            raise NodeError(f"what is to be approved has more than {MAX_VALUE_BYTES} bytes")
        key = _key(tenant, run_id)
        packed = await self._ask(key, asked, packed)
        told()
        try:
            decision = await self._decided(key, asked.node)
        except BaseException:
            if not stays():
                with suppress(StoreError):
                    await self._store.run(_CHANGE, [key], [asked.node, packed, b""])
            raise
        return answer_of(asked, decision)

    async def of_run(self, tenant: str, run_id: str) -> list[Approval]:
        """What the run has asked, the oldest question first. Raises `InvalidName`, `StoreUnavailable`."""
        found = await self._store.execute("HVALS", _key(tenant, run_id))
        return sorted(map(_unpack, found), key=lambda approval: (approval.asked.asked, approval.asked.node))

    async def decide(self, tenant: str, run_id: str, node: str, decision: Decision) -> Outcome:
        """Takes a decision, if it is the first. Raises `InvalidName`, `StoreUnavailable`."""
        key = _key(tenant, run_id)
        packed = await self._store.execute("HGET", key, node)
        while packed is not None:
            approval = _unpack(packed)
            if approval.decision is not None:
                return "late"
            if not fits(approval.asked, decision):
                return "unfit"
            taken = _pack(Approval(approval.asked, decision))
            if await self._store.run(_CHANGE, [key], [node, packed, taken]):
                return "taken"
            packed = await self._store.execute("HGET", key, node)
        return "unknown"

    async def _ask(self, key: str, asked: Asked, packed: bytes) -> bytes:
        """Puts the question, if it is not there. What is there then."""
        keep_ms = int((asked.until - time.time() + KEPT_S) * 1000)
        try:
            there: bytes | None = await self._store.execute("HGET", key, asked.node)
            if there is not None and _unpack(there).asked.asked == asked.asked:
                return there
            taken = await self._store.run(_ASK, [key], [asked.node, packed, keep_ms, self._most])
        except StoreError as error:
            _unavailable(error)
        if not taken:
            raise NodeError(f"the run waits for {self._most} approvals already")
        return packed

    async def _decided(self, key: str, node: str) -> Decision:
        pause = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause)
            pause = min(MAX_PAUSE_S, GROWTH * pause)
            try:
                packed: Any = await self._store.execute("HGET", key, node)
            except StoreUnavailable:
                continue  # the person has time, and so has the store
            if packed is None:
                raise NodeError("the question to a person was lost in the store")
            decision = _unpack(packed).decision
            if decision is not None:
                return decision


def _unavailable(error: StoreError) -> NoReturn:
    raise ModelUnavailable("nobody can be asked: the store is out", retry_after_s=MAX_PAUSE_S) from error


def _key(tenant: str, run_id: str) -> str:
    check_name("run_id", run_id)
    return tenant_key(tenant, "approvals", run_id)
