"""How often a row does what it does, and where its figures go.

CHAOS_SHARE=0.1 pytest tests/chaos        a tenth of the counts
CHAOS_RESULTS=chaos.json                  the rows that ran are put into this file
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

Figure = int | float | str


def times(count: int) -> int:
    """The count of a row, or the share of it that is asked for; at least one."""
    return max(1, round(count * float(os.environ.get("CHAOS_SHARE", "1"))))


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: the least value that `share` of all are not above. 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def on(engine: str) -> str:
    """What the title of a row says of its engine."""
    return "" if engine == "fake" else f" (on {engine})"


def report(row: int, title: str, **figures: Figure) -> None:
    """Prints a line of JSON, and keeps it where the results are kept."""
    kept = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    line = {"row": row, "title": title, **kept}
    print(json.dumps(line), flush=True)
    if file := os.environ.get("CHAOS_RESULTS"):
        _keep(Path(file), line)


def _keep(file: Path, line: dict[str, Figure]) -> None:
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    rows = [row for row in rows if row["row"] != line["row"] or row["title"] != line["title"]]
    rows.append(line | {"measured": datetime.now(UTC).strftime("%Y-%m-%d")})
    rows.sort(key=lambda row: (row["row"], row["title"]))
    about = {
        "python": platform.python_version(),
        "ray": version("ray"),
        "cores": os.cpu_count(),
        "engine": "fake",
    }
    file.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
