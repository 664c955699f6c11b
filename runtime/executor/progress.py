"""How far a run has come: what was done before this attempt, and what this one has yet to have kept.

    done    ask  search[0].each  plan+0          of earlier attempts: a node that is there gives its outputs
    noted   search[1].each  plan+1               of this one, until the journal has them

Everything goes by the path of a *try*: that of the node with `~2` behind whatever in it is tried a second
time. `refine~2.draft` is of a node inside one that started over, so that what the first try gave is never
taken for a part of the second; `refine~2` itself says that the second has begun.

Nodes do not wait for the journal. Only one that changes the world outside waits until all that came before is
kept: it may have been asked for by what a model said, and another attempt that does not know of it would have
the model say something else. This is the output commit of optimistic logging (Elnozahy, Alvisi, Wang and
Johnson, "A survey of rollback-recovery protocols in message-passing systems", ACM Computing Surveys 34(3),
2002, section 2.4).

What a node reads while it is still being made is not kept, and may be another when it is made again. So a
node that does is not done before that is, what earlier attempts did inside it is forgotten when it is made
again, and one with effects waits for the whole.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from cluster.messages import Usage
from runtime.durability.model import Checkpoint

OF_RUN = "+run"
"""Path of what is kept of the run as a whole."""

_TRY = re.compile(r"^(?P<node>.*)~(?P<number>[0-9]+)$")


def _ignore() -> None:
    pass


class Progress:
    """Of one attempt at one run."""

    def __init__(
        self,
        done: Mapping[str, Checkpoint] | None = None,
        *,
        keeps: bool = False,
        commits: bool = False,
        wake: Callable[[], None] = _ignore,
    ) -> None:
        """
        Args:
            done: by path of a try, what this attempt need not do.
            keeps: whether anything is to be noted.
            commits: whether nodes with effects wait until all before them is kept.
            wake: told that something was noted.
        """
        self.done = dict(done or {})
        self.keeps = keeps
        self.commits = commits
        self._wake = wake
        self._noted: dict[str, Checkpoint] = {}
        self._count = self._kept_count = 0
        self._kept = asyncio.Event()
        self._tries: dict[str, int] = {}
        self._parts: dict[str, Usage] = {}
        self._numbers: dict[str, int] = {}
        self.completed = 0
        """Nodes that are done, those inside others among them."""
        for checkpoint in self.done.values():
            self._index(checkpoint)

    def tries(self, path: str) -> int:
        """The number of the try at which a node had arrived. `path` is that of its first."""
        return self._tries.get(path, 1)

    def spent(self, path: str) -> Usage:
        """What the parts of a node's work that are done have cost. `path` is that of its first try."""
        return self._parts.get(path, Usage())

    def last(self, path: str) -> int:
        """The largest number under which a try has kept a part of its work; 0 where there is none."""
        return self._numbers.get(path, 0)

    def note(self, checkpoint: Checkpoint) -> None:
        """Has it kept, in place of what was noted under the same path."""
        self._noted[checkpoint.path] = checkpoint
        self._count += 1
        self._wake()

    def take(self) -> tuple[list[Checkpoint], int]:
        """What is to be kept next, and a mark for `kept`."""
        noted, self._noted = list(self._noted.values()), {}
        return noted, self._count

    def kept(self, mark: int) -> None:
        """What was taken with that mark, and before, is kept."""
        self._kept_count = mark
        self._kept.set()
        self._kept = asyncio.Event()

    async def committed(self) -> None:
        """Returns when all that was noted so far is kept."""
        mark = self._count
        while self.commits and self._kept_count < mark:
            await self._kept.wait()

    def forget(self, path: str) -> None:
        """Nothing inside the node at `path` was done."""
        begin = tuple(path + sign for sign in ".[+~")
        for inside in [each for each in self.done if each.startswith(begin)]:
            del self.done[inside]

    def _index(self, checkpoint: Checkpoint) -> None:
        node, part, key = checkpoint.path.partition("+")
        tried = _TRY.match(node)
        if not part and tried is None:
            self.completed += 1
            return
        if key.isdecimal():
            self._numbers[node] = max(self.last(node), int(key))
        first = node if tried is None else tried["node"]
        if tried is not None:
            self._tries[first] = max(self.tries(first), int(tried["number"]))
        if checkpoint.usage is not None:
            self._parts[first] = self.spent(first) + checkpoint.usage


def of_run(usage: Usage, **more: Any) -> Checkpoint:
    """What is kept of the run as a whole: what its nodes owe, and what else is said."""
    return Checkpoint(OF_RUN, more, usage)
