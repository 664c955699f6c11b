"""How much more memory this process has held at once, since a moment."""

from __future__ import annotations

import resource
from pathlib import Path

_PAGE = resource.getpagesize()


class Memory:
    """Begins when it is made. Linux only."""

    def __init__(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self._before = pages * _PAGE

    def grown_mb(self) -> float:
        """The peak since the process began, less what it held when this was made; at least 0."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return max(0.0, (peak - self._before) / 2**20)
