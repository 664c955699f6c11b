"""Two organisations on one gateway, and a key of every role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from runtime.store.client import Store
from serve_apps.audit.model import Entry
from serve_apps.gateway.callers import Role
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.keys import KeyRecord, KeyStore
from tests.serve_apps.conftest import Site


@dataclass
class World:
    """The organisations acme, with the team lab, and other; the administrator is of neither."""

    site: Site
    tokens: dict[str, str]
    records: dict[str, KeyRecord]

    async def ask(self, who: str, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.tokens[who]}"}
        return await self.site.http.request(
            method, f"/v1/admin/{path}", json=body, headers=headers, params=query or None, timeout=30
        )

    async def done(self, who: str, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer of a call that has to succeed."""
        answer = await self.ask(who, method, path, body, **query)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    async def refused(
        self, who: str, method: str, path: str, body: Any = None, **query: Any
    ) -> dict[str, Any]:
        """The error of a call that must not succeed, and its status."""
        answer = await self.ask(who, method, path, body, **query)
        assert answer.status_code >= 400, answer.text
        error: dict[str, Any] = answer.json()["error"]
        return {**error, "status": answer.status_code}

    async def log(self, tenant: str = "acme") -> list[Entry]:
        """The newest first."""
        return await self.site.deps.audit.newest(tenant, 100)


KEYS: dict[str, tuple[str, str, Role]] = {
    "admin": ("platform", "default", "admin"),
    "owner": ("acme", "default", "owner"),
    "member": ("acme", "lab", "member"),
    "service": ("acme", "lab", "service"),
    "stranger": ("other", "default", "owner"),
}


@pytest.fixture
async def world(site: Site, keys: KeyStore, one_store: Store) -> World:
    directory = Directory(one_store)
    for tenant in ("acme", "other", "platform"):
        await directory.create_organisation(tenant, tenant.title())
    await directory.create_team("acme", "lab", "Lab")
    tokens, records = {}, {}
    for who, (tenant, team, role) in KEYS.items():
        functions = role == "owner"  # nobody gives what it does not have
        tokens[who], records[who] = await keys.create(tenant, who, team=team, role=role, functions=functions)
    return World(site, tokens, records)
