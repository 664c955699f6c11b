"""The approvals of runs in the store: a hash for each run, a field for each node that waits.

    cgh:{acme}:approvals:5f…      review: asked, decision

A decision is written by compare-and-set, so the first one holds, whoever else decides at the same time. The
node that waits looks again and again, with growing pauses: a run may wait for minutes, in any process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, NoReturn

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
from runtime.sealing import NOTHING_SEALED, Seal, Sealing, opened
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

    def __init__(self, store: Store, *, most: int = MAX_APPROVALS, sealing: Sealing = NOTHING_SEALED) -> None:
        self._store = store
        self._most = most
        self._sealing = sealing

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
        key, seal = _key(tenant, run_id), self._sealing.of(tenant)
        kept = await self._ask(key, seal, asked, seal.close(packed, key, asked.node))
        told()
        try:
            decision = await self._decided(key, seal, asked.node)
        except BaseException:
            if not stays():
                with suppress(StoreError):
                    await self._store.run(_CHANGE, [key], [asked.node, kept, b""])
            raise
        return answer_of(asked, decision)

    async def any_decided(self, tenant: str, run_id: str, nodes: Sequence[str]) -> bool:
        """Whether one of these questions of the run was decided. Raises `ModelUnavailable`."""
        try:
            approvals = await self.of_run(tenant, run_id)
        except StoreError as error:
            _unavailable(error)
        return any(each.decision is not None and each.asked.node in nodes for each in approvals)

    async def of_run(self, tenant: str, run_id: str) -> list[Approval]:
        """What the run has asked, the oldest question first. Raises `InvalidName`, `StoreUnavailable`."""
        key, seal = _key(tenant, run_id), self._sealing.of(tenant)
        found = await self._store.execute("HGETALL", key)
        fields = zip(found[::2], found[1::2], strict=True)
        approvals = [_read(seal, kept, key, node.decode()) for node, kept in fields]
        known = [approval for approval in approvals if approval is not None]
        return sorted(known, key=lambda approval: (approval.asked.asked, approval.asked.node))

    async def decide(self, tenant: str, run_id: str, node: str, decision: Decision) -> Outcome:
        """Takes a decision, if it is the first. Raises `InvalidName`, `StoreUnavailable`."""
        key, seal = _key(tenant, run_id), self._sealing.of(tenant)
        kept = await self._store.execute("HGET", key, node)
        while (approval := _read(seal, kept, key, node)) is not None:
            if approval.decision is not None:
                return "late"
            if not fits(approval.asked, decision):
                return "unfit"
            taken = seal.close(_pack(Approval(approval.asked, decision)), key, node)
            if await self._store.run(_CHANGE, [key], [node, kept, taken]):
                return "taken"
            kept = await self._store.execute("HGET", key, node)
        return "unknown"

    async def _ask(self, key: str, seal: Seal, asked: Asked, kept: bytes) -> bytes:
        """Puts the question, if it is not there. What is there then."""
        keep_ms = int((asked.until - time.time() + KEPT_S) * 1000)
        try:
            there: bytes | None = await self._store.execute("HGET", key, asked.node)
            before = _read(seal, there, key, asked.node)
            if there is not None and before is not None and before.asked.asked == asked.asked:
                return there
            taken = await self._store.run(_ASK, [key], [asked.node, kept, keep_ms, self._most])
        except StoreError as error:
            _unavailable(error)
        if not taken:
            raise NodeError(f"the run waits for {self._most} approvals already")
        return kept

    async def _decided(self, key: str, seal: Seal, node: str) -> Decision:
        pause = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause)
            pause = min(MAX_PAUSE_S, GROWTH * pause)
            try:
                kept = await self._store.execute("HGET", key, node)
            except StoreUnavailable:
                continue  # the person has time, and so has the store
            approval = _read(seal, kept, key, node)
            if approval is None:
                raise NodeError("the question to a person was lost in the store")
            if approval.decision is not None:
                return approval.decision


def _read(seal: Seal, kept: bytes | None, key: str, node: str) -> Approval | None:
    """None where there is none, or none that we wrote."""
    packed = None if kept is None else opened(seal, kept, key, node)
    return None if packed is None else _unpack(packed)


def _unavailable(error: StoreError) -> NoReturn:
    raise ModelUnavailable("nobody can be asked: the store is out", retry_after_s=MAX_PAUSE_S) from error


def _key(tenant: str, run_id: str) -> str:
    check_name("run_id", run_id)
    return tenant_key(tenant, "approvals", run_id)
