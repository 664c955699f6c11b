"""CPU seconds and resident memory of groups of processes, from the operating system's own counters."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import psutil


class Usage(msgspec.Struct, frozen=True):
    """A reading of one group of processes."""

    cpu_s: dict[tuple[int, float], float]
    """User and system CPU seconds since start, by pid and start time (pids are used again)."""
    names: dict[tuple[int, float], str]
    """What each is called, as short as tells it from the others."""
    rss_mb: float
    """Sum of resident set sizes in MiB. Shared pages count once for each process."""

    def cpu_since(self, earlier: Usage) -> float:
        """CPU seconds used between `earlier` and this reading.

        A process that is new counts from its birth; one that ended in between is lost, and so no scenario
        restarts servers while it measures.
        """
        return sum(self.cpu_by_name(earlier).values())

    def cpu_by_name(self, earlier: Usage) -> dict[str, float]:
        """As `cpu_since`, of all processes of a name together."""
        used: dict[str, float] = {}
        for key, seconds in self.cpu_s.items():
            name = self.names[key]
            used[name] = used.get(name, 0.0) + seconds - earlier.cpu_s.get(key, 0.0)
        return used


def read(processes: Iterable[psutil.Process]) -> Usage:
    """Read the group now, counting each process once however often it is named. The dead are left out."""
    cpu: dict[tuple[int, float], float] = {}
    names: dict[tuple[int, float], str] = {}
    rss = 0
    for process in processes:
        try:
            with process.oneshot():
                key = (process.pid, process.create_time())
                if key in cpu:
                    continue
                times = process.cpu_times()
                rss += process.memory_info().rss
                cpu[key] = times.user + times.system
                names[key] = _short_name(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return Usage(cpu, names, rss / 2**20)


def _short_name(process: psutil.Process) -> str:
    """Ray writes an actor's class into its title: `ray::ServeReplica:gateway:gateway` is `gateway`."""
    title = (process.cmdline() or [""])[0]
    return title.rsplit(":", 1)[-1].split(".")[0] if title.startswith("ray::") else process.name()


def tree(root: psutil.Process) -> list[psutil.Process]:
    """The process and all its descendants; empty when it is gone."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def titled(processes: Iterable[psutil.Process], *needles: str) -> list[psutil.Process]:
    """Those whose command line holds any of the texts. Ray writes an actor's class into its title."""
    found = []
    for process in processes:
        try:
            line = " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if any(needle in line for needle in needles):
            found.append(process)
    return found
