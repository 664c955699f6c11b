"""Which beginnings of prompts the engines have read lately."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

KEPT_S = 300.0
"""How long an engine is taken to remember: it forgets what was used longest ago, as others need room."""
MAX_PREFIXES = 10_000


class Prefix(NamedTuple):
    """One in the cache of an engine: tenants share none."""

    model: str
    tenant: str
    digest: str


class Warmth:
    """Of one runner, and a guess: other runners call the same engines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds."""
        self._clock = clock
        self._read: OrderedDict[Prefix, float] = OrderedDict()
        """When each was read, the last one at the end."""

    def note(self, prefix: Prefix) -> None:
        """It is being read now."""
        self._read[prefix] = self._clock()
        self._read.move_to_end(prefix)
        if len(self._read) > MAX_PREFIXES:
            self._read.popitem(last=False)

    def has(self, prefix: Prefix) -> bool:
        read = self._read.get(prefix)
        return read is not None and self._clock() - read < KEPT_S
