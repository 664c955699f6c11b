from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.serve_apps.gateway.oidc.provider import FakeProvider


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider().serving() as serving:
        yield serving
