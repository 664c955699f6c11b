"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CONFIG = Annotated[
    Path, typer.Option("--config", "-c", help="The deploy config.", envvar="CLUSTERGRAPH_CONFIG")
]
QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
