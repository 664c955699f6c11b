"""The garbage collector in a process that serves for a long time.

A replica is born with some hundred thousand objects (modules, classes, configs) that live as long as it does.
Python walks through all of them in each full collection, and starts a young one every 700 objects, which is
every few requests: a tenth of a gateway's time.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""Objects made, and not freed by their reference count, before a young collection."""


def spare_what_stays() -> None:
    """Leaves all that exists now out of every later collection, and collects young objects less often.

    For the end of a replica's start: what is frozen and becomes a cycle of garbage later is never freed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
