"""A gateway of ours as the remote end of a pool."""

from __future__ import annotations

from cluster.engines.fake import FakeEngine, FakeTokenCounter
from cluster.interface import ModelInfo
from cluster.pools.local import LocalPool
from runtime.approvals.book import ApprovalBook
from runtime.context.store import ContextStore
from runtime.records.store import RunStore
from runtime.store.client import Store
from serve_apps.audit.log import AuditLog
from serve_apps.gateway.app import build_app
from serve_apps.gateway.deps import GatewayDeps
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.http import ASGIApp
from serve_apps.gateway.idempotency import AnswerStore
from serve_apps.gateway.key_tokens import PEPPER_BYTES
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.quotas import QuotaLedger
from serve_apps.gateway.responses import ResponseStore
from serve_apps.settings import GatewaySettings

CHAT = "remote-chat"


async def gateway_over(engine: FakeEngine, store: Store, max_context: int) -> tuple[ASGIApp, str]:
    """The application, which serves the engine as `CHAT`, and a key to it."""
    keys = KeyStore(store, bytes(PEPPER_BYTES))
    info = ModelInfo(CHAT, "generate", max_context, 16)
    deps = GatewayDeps(
        pools={CHAT: LocalPool(info, engine, FakeTokenCounter())},
        keys=keys,
        audit=AuditLog(store, bytes(PEPPER_BYTES)),
        directory=Directory(store),
        quotas=QuotaLedger(store),
        contexts=ContextStore(store),
        runs=RunStore(store),
        approvals=ApprovalBook(store),
        answers=AnswerStore(store),
        responses=ResponseStore(store),
        tokenizers={},
        tasks={},
        graphs={},
        prices={},
        usage=None,
        runner=None,
        journals=None,
        inline=None,
        persons=None,
        settings=GatewaySettings(),
    )
    token, _ = await keys.create("acme", "pool", allowance=Allowance(Limits()))
    return build_app(deps), token
