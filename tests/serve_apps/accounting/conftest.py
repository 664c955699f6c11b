from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serve_apps.accounting.schema import open_tables


@pytest.fixture
def tables_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'usage.db'}"


@pytest.fixture
def tables(tables_url: str) -> Iterator[Engine]:
    engine = open_tables(tables_url)
    yield engine
    engine.dispose()
