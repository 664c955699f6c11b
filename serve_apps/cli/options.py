"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CONFIG = Annotated[
    Path, typer.Option("--config", "-c", help="The deploy config.", envvar="CLUSTERGRAPH_CONFIG")
]
QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"

URL = Annotated[str, typer.Option("--url", help="Where the gateway is.", envvar="CLUSTERGRAPH_URL")]
LOCAL_URL = "http://127.0.0.1:8000"
KEY = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="The API key; better in the environment. Default: the demo key of this machine.",
        envvar="CLUSTERGRAPH_KEY",
        show_envvar=True,
    ),
]
