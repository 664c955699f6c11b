"""The garbage collector in a process that serves for a long time.

Serve freezes what a replica has built when it starts, so later collections leave that out. But Python also
starts a young collection every 700 objects, and a replica with 32 requests under way makes these within a few
of them: it walks through the same live requests again and again.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""Objects made, and not freed by their reference count, before a young collection."""


def collect_less_often() -> None:
    """For the end of a replica's start. Garbage in cycles waits a little longer: some megabytes at most."""
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
