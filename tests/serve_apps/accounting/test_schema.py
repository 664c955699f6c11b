from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ConfigError
from serve_apps.accounting.schema import open_tables


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("hunter2", "no URL of a database"),
        ("nosuch://user:hunter2@host/db", "no URL of a database"),
        ("oracle://user:hunter2@host/db", "needs the package"),
        ("sqlite:////no/such/folder/hunter2.db", "cannot be opened"),
    ],
)
def test_a_bad_url_is_refused_without_being_quoted(url: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as refused:
        open_tables(url)
    assert "hunter2" not in str(refused.value)


def test_a_file_is_made(tmp_path: Path) -> None:
    open_tables(f"sqlite:///{tmp_path / 'usage.db'}").dispose()
    assert (tmp_path / "usage.db").is_file()
