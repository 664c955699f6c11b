"""A gateway in a process of its own, over the fake engine and a real store: for tests that kill it.

    python -m tests.chaos.gateway_process STORE_URL TIMEOUT_S LEASE_S TOKEN_S OUTPUT_TOKENS SHARES

Where `SHARES` is not 0, rates fall back to that part of each limit while the store is out. Prints its URL
when it serves; what it logs after that goes to its standard error. Each answer says in `x-decided-s` how many
seconds after the gateway had heard of its request it began.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from cluster.engines.fake import FakeEngine, FakeScript
from runtime.approvals.book import ApprovalBook
from runtime.context.store import ContextStore
from runtime.records.store import RunStore
from runtime.store.client import Store
from serve_apps.audit.log import AuditLog
from serve_apps.gateway import admission
from serve_apps.gateway.app import build_app
from serve_apps.gateway.deps import GatewayDeps
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.http import ASGIApp, ASGIMessage, Receive, Scope, Send
from serve_apps.gateway.idempotency import AnswerStore
from serve_apps.gateway.key_tokens import PEPPER_BYTES
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.local_share import LocalShare
from serve_apps.gateway.quotas import LEASE_S, QuotaLedger
from serve_apps.gateway.responses import ResponseStore
from serve_apps.settings import KNOWN_KEYS_S
from tests.serve_apps.conftest import CHAT, chat_pool, served

DECIDED = b"x-decided-s"


def timed(app: ASGIApp) -> ASGIApp:
    """Tells of each answer when it began."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()

        async def tell(message: ASGIMessage) -> None:
            if message["type"] == "http.response.start":
                decided = (DECIDED, b"%.6f" % (time.perf_counter() - began))
                message["headers"] = [*message["headers"], decided]
            await send(message)

        await app(scope, receive, tell)

    return answer


async def serve(url: str, timeout_s: float, lease_s: float, script: FakeScript, shares: int) -> None:
    # Held on to as often in a lease as in production.
    admission.RENEW_S *= lease_s / LEASE_S  # type: ignore[misc]
    store = Store.connect(url, timeout_s=timeout_s, fail_fast=True)
    pepper = bytes(PEPPER_BYTES)
    grace_s = KNOWN_KEYS_S if shares else 0.0
    deps = GatewayDeps(
        pools={CHAT: chat_pool(FakeEngine(script))},
        keys=KeyStore(store, pepper, grace_s=grace_s),
        audit=AuditLog(store, pepper),
        directory=Directory(store, grace_s=grace_s),
        quotas=QuotaLedger(store, lease_s=lease_s),
        contexts=ContextStore(store),
        runs=RunStore(store),
        approvals=ApprovalBook(store),
        answers=AnswerStore(store),
        responses=ResponseStore(store),
        local_share=LocalShare(shares) if shares else None,
    )
    async with served(timed(build_app(deps))) as served_at:
        print(served_at, flush=True)
        # Nobody reads what is printed from here on: a full pipe would stop the gateway.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    store_url, timeout_s, lease_s, token_s, tokens, shares = sys.argv[1:]
    asyncio.run(
        serve(
            *(store_url, float(timeout_s), float(lease_s)),
            FakeScript(token_s=float(token_s), output_tokens=int(tokens)),
            int(shares),
        )
    )
