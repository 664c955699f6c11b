from __future__ import annotations

import pytest

from runtime.store.client import Store
from serve_apps.gateway.quotas import QuotaLedger
from tests.serve_apps.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(store: Store, clock: Clock) -> QuotaLedger:
    return QuotaLedger(store, clock=clock)
