"""Idempotency keys: a request that is sent twice is done once, as in Stripe's API.

    claim ──► claimed ──► the call ──► keep      the answer, for a day
      │                      └───────► release   nothing was spent: the next one may try again
      ├─► answer                       what the first one was told, again
      ├─► InFlight                     the first one is not done yet
      └─► KeyReused                    the key came with another request

    cgh:{acme}:once:8c…       fingerprint, owner while it is answered, answer
    cgh:{acme}:onces          names of all that have been answered, by when
    cgh:{acme}:once-answers   names and sizes of those whose answer is still there; once-bytes: their sum

A key counts for the API key that it came with. A claim is renewed for as long as its gateway lives; when it
dies, another gateway may claim the key a few seconds later. The store holds digests in place of the keys.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from hashlib import blake2b
from typing import Any, Final

import msgspec
import structlog

from runtime.sealing import NOTHING_SEALED, Sealing, opened
from runtime.store.client import Reply, Script, ScriptCall, Store
from runtime.store.errors import StoreError, StoreUnavailable
from runtime.store.group_commit import GroupCommit
from runtime.store.naming import tenant_key
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.errors import Conflict, Header, Unprocessable

KEEP_S: Final = 24 * 3600.0
MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Of one answer; what is larger is not kept."""
MAX_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Of all answers of a tenant. The oldest are let go beyond; their keys still count."""
MAX_KEYS: Final = 100_000
"""Of a tenant that have an answer. The oldest are forgotten beyond."""
CLAIM_S: Final = 60.0
"""After this a claim that is not renewed is void."""
RENEW_EVERY_S: Final = 5.0
RETRY_AFTER_S: Final = 1.0

_CLAIM = Script("idempotency_claim")
_HOLD = Script("idempotency_hold")
_KEEP = Script("idempotency_keep")
_DO_NOT_RETRY: Header = (b"x-should-retry", b"false")
"""OpenAI's SDKs retry a 409 unless told not to."""

_log = structlog.get_logger(__name__)


class KeptAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What a client was told."""

    status: int
    headers: list[Header]
    body: bytes


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(KeptAnswer).decode


class Claim:
    """The right to answer the request that came with a key. `keep` or `release` ends it."""

    __slots__ = ("_answers", "key", "name", "owner", "tenant")

    def __init__(self, answers: AnswerStore, tenant: str, name: str) -> None:
        self._answers = answers
        self.tenant = tenant
        self.name = name
        self.key = tenant_key(tenant, "once", name)
        self.owner = os.urandom(12).hex()

    async def keep(self, answer: KeptAnswer | None) -> None:
        """Keeps the answer; None stands for one that is too large. Never raises: without the store the
        claim becomes void, and the next request with the key is done anew."""
        await self._answers.keep(self, answer)

    def release(self) -> None:
        """Lets the next request with the key try again."""
        self._answers.release(self)


class AnswerStore:
    """Claims keys and keeps answers. `renew` must run for as long as there are claims."""

    def __init__(
        self,
        store: Store,
        *,
        keep_s: float = KEEP_S,
        most: int = MAX_KEYS,
        most_bytes: int = MAX_KEPT_BYTES,
        sealing: Sealing = NOTHING_SEALED,
    ) -> None:
        self._store = store
        self._commit = GroupCommit(store)
        self._keep_ms = int(keep_s * 1000)
        self._most = most
        self._most_bytes = most_bytes
        self._sealing = sealing
        self._held: set[Claim] = set()
        self._releasing: set[asyncio.Task[None]] = set()

    async def claim(self, caller: Caller, given: bytes, fingerprint: bytes) -> Claim | KeptAnswer:
        """The claim of the key `given` for this request, or what an earlier one was answered.

        Raises `Conflict` (the earlier one is not done, or its answer was not kept), `Unprocessable` (it was
        another request), `StoreUnavailable`.
        """
        claim = Claim(self, caller.tenant, _digest(caller.id.encode(), given))
        seal = self._sealing.of(caller.tenant)
        args = (seal.digest(fingerprint), claim.owner, _ms(CLAIM_S))
        reply = await self._commit.run(
            ScriptCall(_CLAIM, [claim.key], args), abandoned=lambda reply: self._unheard(claim, reply)
        )
        match reply:
            case b"claimed":
                self._held.add(claim)
                return claim
            case b"busy":
                raise Conflict(
                    "The request that came first with this idempotency key is still being answered.",
                    param="idempotency-key",
                    code="idempotency_in_flight",
                    retry_after_s=RETRY_AFTER_S,
                )
            case b"other":
                raise Unprocessable(
                    "This idempotency key came with another request before: use a new key for a new request.",
                    param="idempotency-key",
                    code="idempotency_key_reused",
                )
        answer = opened(seal, reply[0], claim.key, "answer") if reply[0] else None
        if answer is None:
            raise Conflict(
                "The request that came first with this idempotency key was answered, and the answer was too "
                "large to be kept, or was not kept for so long. It is not done again: use a new key.",
                param="idempotency-key",
                code="idempotent_answer_not_kept",
                headers=[_DO_NOT_RETRY],
            )
        return _unpack(answer)

    async def keep(self, claim: Claim, answer: KeptAnswer | None) -> None:
        """As `Claim.keep`."""
        self._held.discard(claim)
        seal = self._sealing.of(claim.tenant)
        packed = b"" if answer is None else seal.close(_pack(answer), claim.key, "answer")
        prefix = claim.key.removesuffix(claim.name)
        tallies = [tenant_key(claim.tenant, part) for part in ("onces", "once-answers", "once-bytes")]
        args = (claim.owner, packed, claim.name, self._keep_ms, self._most, self._most_bytes, prefix)
        try:
            kept = await self._commit.run(ScriptCall(_KEEP, [claim.key, *tallies], args))
        except StoreError as error:
            _log.warning("idempotent_answer_lost", error=type(error).__name__)
            return
        if not kept:
            _log.warning("idempotent_claim_lost")

    def release(self, claim: Claim) -> None:
        """As `Claim.release`."""
        self._held.discard(claim)
        self._background(self._release(claim))

    async def renew(self, every_s: float = RENEW_EVERY_S) -> None:
        """Holds on to all claims, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            held = list(self._held)
            if held:
                calls = [ScriptCall(_HOLD, [each.key], (each.owner, _ms(CLAIM_S))) for each in held]
                try:
                    await self._store.run_many(calls)
                except StoreUnavailable:
                    continue  # told elsewhere, once
                except StoreError as error:
                    _log.warning("idempotent_claims_not_renewed", error=type(error).__name__)

    async def drain(self, seconds: float) -> None:
        """Waits, at most so long, until what is released is free."""
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=seconds)

    def _unheard(self, claim: Claim, reply: Reply) -> None:
        """Whoever asked has left before the answer."""
        if reply == b"claimed":
            self._background(self._release(claim))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release(self, claim: Claim) -> None:
        try:
            await self._commit.run(ScriptCall(_HOLD, [claim.key], (claim.owner, 0)))
        except StoreError as error:
            _log.warning("idempotent_claim_not_released", error=type(error).__name__)


def fingerprint_of(path: str, streamed: bool, body: bytes) -> bytes:
    """Of a request: the same for the same path and body, byte for byte, and the same kind of answer."""
    return _digest(path.encode(), b"stream" if streamed else b"", body).encode()


def _digest(*parts: bytes) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
