"""Who sees the queues in front of the models, and what they see."""

from __future__ import annotations

import pytest

from tests.serve_apps.api.admin.conftest import World
from tests.serve_apps.conftest import CHAT, EMBED


async def test_an_administrator_sees_every_model(world: World) -> None:
    report = await world.done("admin", "GET", "pools")
    replicas = {pool["model"]: pool["replicas"] for pool in report["data"]}
    assert set(replicas) >= {CHAT, EMBED}
    assert len(replicas[CHAT]) == 1


@pytest.mark.parametrize("who", ["owner", "member", "service"])
async def test_nobody_else_sees_them(world: World, who: str) -> None:
    """They tell of all tenants."""
    error = await world.refused(who, "GET", "pools")
    assert (error["status"], error["code"]) == (403, "role_not_allowed")
