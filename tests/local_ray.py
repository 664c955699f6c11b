"""A Ray of our own for tests that need no Serve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray


@contextmanager
def local_ray() -> Iterator[None]:
    """Two cores and no dashboard, gone at the end.

    Ray starts one by itself when what is left of an earlier test asks it something, as a handle does that is
    let go: such a one is ended first.
    """
    ray.shutdown()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
