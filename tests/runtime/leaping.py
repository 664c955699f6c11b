"""Time that passes as fast as the work allows, for tests of what comes before what.

    waits 0.3 s: "the choice"    │ nothing else can go on: the clock leaps, and the choice is there
    waits 3600 s: "never"        │

Where tests tell fast from slow by tenths of a second, a machine that is busy makes the fast slow, and each of
them takes these tenths. Here everything that can go on has gone on before any time passes at all. It takes
loops without threads and sockets: nobody would wait for these.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Any, NoReturn

_seconds = time.time


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop that does not wait for what is due next."""

    def __init__(self) -> None:
        self.leapt_s = 0.0
        super().__init__(_Leaping(self))

    def time(self) -> float:
        return super().time() + self.leapt_s

    def run_in_executor(self, *_: Any) -> NoReturn:
        raise RuntimeError("time leaps past threads: this test needs a loop that waits")


class _Leaping(selectors.DefaultSelector):
    def __init__(self, loop: LeapingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready and timeout > 0:
            self._loop.leapt_s += timeout
        return ready


def unix_s() -> float:
    """As `time.time`, by the clock of the loop that runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _seconds()
    return _seconds() + (loop.leapt_s if isinstance(loop, LeapingLoop) else 0.0)
