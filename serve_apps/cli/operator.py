"""What is done on the machine itself, with its secrets, and not over the API: it is audited all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from serve_apps.audit.log import AuditLog
from serve_apps.audit.model import OPERATOR, PLATFORM, Deed
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyStore
from serve_apps.settings import Settings

STORE_TIMEOUT_S = 5.0


class Operated(NamedTuple):
    """What the operator of a deploy config has at hand."""

    keys: KeyStore
    audit: AuditLog


def store_url(settings: Settings) -> str:
    return settings.store.url or EmbeddedValkey(settings.store_dir).url


@asynccontextmanager
async def operating(settings: Settings) -> AsyncIterator[Operated]:
    """For as long as the block lasts."""
    pepper = load_or_create_pepper(settings.pepper_file)
    store = Store.connect(store_url(settings), timeout_s=STORE_TIMEOUT_S)
    try:
        yield Operated(KeyStore(store, pepper), AuditLog(store, pepper))
    finally:
        await store.close()


def deed(tenant: str, action: str, thing: str, after: str | None = None) -> Deed:
    """Of the operator, at a thing of the tenant or of the `PLATFORM`, with the digest of what it becomes."""
    return Deed(tenant, OPERATOR, PLATFORM, OPERATOR, action, thing, request_id="", after=after)
