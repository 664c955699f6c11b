"""Processes of engines that have outlived their replica, found and ended by the next one that starts there.

vLLM's engine runs in processes of its own. A replica that is killed, or whose raylet is, cannot end them, and
they keep the memory of the accelerator that the next replica needs.

    replica 4711, killed  ─►  EngineCore, marked "4711 …", lives on  ─►  replica 4812 starts and ends it

All are marked in their environment with the process that started them. Only marked ones whose starter is
gone are ever touched: a number that another process has taken over is told by the time of its start.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

import psutil
import structlog

MARKER = "CLUSTERGRAPH_ENGINE_OF"
GRACE_S = 5.0
"""Between asking and insisting."""

log = structlog.get_logger(__name__)


def mark(environ: MutableMapping[str, str] = os.environ) -> None:
    """What is started from here on with that environment is an engine's process, of this replica."""
    environ[MARKER] = _name(os.getpid())
    # Titles such as "VLLM::EngineCore" would be written over the environment that is looked at.
    environ["SPT_NOENV"] = "1"


def end_orphans(grace_s: float = GRACE_S) -> list[int]:
    """Ends the marked processes of this machine whose replica is gone. Their ids."""
    orphans = [process for process in psutil.process_iter() if _is_orphan(process)]
    for process in orphans:
        log.warning("engine_orphan_ended", pid=process.pid)
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(orphans, timeout=grace_s)
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=grace_s)
    return [process.pid for process in orphans]


def _is_orphan(process: psutil.Process) -> bool:
    try:
        marked = process.environ().get(MARKER)
    except (psutil.Error, OSError):  # of another user, or gone meanwhile
        return False
    if marked is None:
        return False
    starter = int(marked.split()[0])
    try:
        return _name(starter) != marked or psutil.Process(starter).status() == psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, FileNotFoundError):
        return True


def _name(pid: int) -> str:
    """Of one process among all that this machine has had since it was booted: its id, and the tick of its
    start as the kernel has it. What psutil tells of the start moves when the machine's clock is set."""
    return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return
