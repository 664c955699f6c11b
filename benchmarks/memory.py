"""How much more memory this process has held at once, since a moment. Linux only."""

from __future__ import annotations

from pathlib import Path


class Memory:
    """Begins when it is made."""

    def __init__(self) -> None:
        self._before = _kib("VmRSS")

    def grown_mb(self) -> float:
        """The peak of this process, in MiB, less what it held when this was made; at least 0.

        Not `getrusage`: its peak begins with that of the process that started this one.
        """
        return max(0, _kib("VmHWM") - self._before) / 1024


def _kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])
