"""Deploying onto what runs, refused before anything is touched. What it does is in the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from serve_apps.cli import processes
from serve_apps.cli.up import deploy

CONFIG = "models: [{name: tiny, engine: fake}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONFIG, "clustergraph up"),
        (CONFIG + "graphs: [none.yaml]\n", "none.yaml"),
        ("models: []\n", "models"),
    ],
)
def test_what_cannot_be_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr(processes, "listening_on", lambda _: {})
    file = tmp_path / "deploy.yaml"
    file.write_text(text)
    console = Console(record=True, width=200)
    assert deploy(file, console) == 1
    assert said in console.export_text()
