"""A gateway in a process of its own, over the fake engine and a real store: for tests that kill it.

    python -m tests.chaos.gateway_process STORE_URL TIMEOUT_S LEASE_S TOKEN_S OUTPUT_TOKENS

Prints its URL when it serves.
"""

from __future__ import annotations

import asyncio
import os
import sys

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
from serve_apps.gateway.idempotency import AnswerStore
from serve_apps.gateway.key_tokens import PEPPER_BYTES
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.quotas import LEASE_S, QuotaLedger
from serve_apps.gateway.responses import ResponseStore
from tests.serve_apps.conftest import CHAT, chat_pool, served

GRACE_S = 600.0


async def serve(url: str, timeout_s: float, lease_s: float, script: FakeScript) -> None:
    # Held on to as often in a lease as in production.
    admission.RENEW_S *= lease_s / LEASE_S  # type: ignore[misc]
    store = Store.connect(url, timeout_s=timeout_s, fail_fast=True)
    pepper = bytes(PEPPER_BYTES)
    deps = GatewayDeps(
        pools={CHAT: chat_pool(FakeEngine(script))},
        keys=KeyStore(store, pepper, grace_s=GRACE_S),
        audit=AuditLog(store, pepper),
        directory=Directory(store, grace_s=GRACE_S),
        quotas=QuotaLedger(store, lease_s=lease_s),
        contexts=ContextStore(store),
        runs=RunStore(store),
        approvals=ApprovalBook(store),
        answers=AnswerStore(store),
        responses=ResponseStore(store),
    )
    async with served(build_app(deps)) as served_at:
        print(served_at, flush=True)
        # Nobody reads what is printed from here on: a full pipe would stop the gateway.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    store_url, timeout_s, lease_s, token_s, tokens = sys.argv[1:]
    asyncio.run(
        serve(
            *(store_url, float(timeout_s), float(lease_s)),
            FakeScript(token_s=float(token_s), output_tokens=int(tokens)),
        )
    )
