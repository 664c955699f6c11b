"""Engines of vLLM that share a GPU: what each is told of its part, and that they start one after the other.

    embed, 0.25   ─►  VLLM_RAY_PER_WORKER_GPUS=0.25, starts
    rerank, 0.25  ─►  VLLM_RAY_PER_WORKER_GPUS=0.25, waits for embed, starts

vLLM's worker asks for a whole GPU of what its replica has booked, unless it is told of the part. And an
engine that starts measures what is free on the GPU before and after it has run once, and takes the difference
for its own: what another one loads meanwhile is missing from its keys and values, and what another lets go of
ends it ("Error in memory profiling").
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from cluster.config import VllmSpec

RETRY_S = 0.25

log = structlog.get_logger(__name__)


def environment(spec: VllmSpec) -> dict[str, str]:
    """Variables for the engine; none where it has whole GPUs or none."""
    return {} if spec.worker_gpus == 1 else {"VLLM_RAY_PER_WORKER_GPUS": f"{spec.worker_gpus:g}"}


def lock_file() -> Path:
    """That of this machine, for processes of this user."""
    return Path(tempfile.gettempdir()) / f"clustergraph-{os.getuid()}-gpu.lock"


@asynccontextmanager
async def one_at_a_time(spec: VllmSpec, file: Path) -> AsyncIterator[None]:
    """Entered by one engine of the machine after the other, where it shares its GPU. A process that ends,
    however it does, lets the next in. Raises `OSError` for a lock file that is not this user's."""
    if spec.worker_gpus == 1:
        yield
        return
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if not _locked(lock):
            log.info("engine_waits_for_another_to_start", model=spec.name)
            while not _locked(lock):  # noqa: ASYNC110 - another process's lock sends no event
                await asyncio.sleep(RETRY_S)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
