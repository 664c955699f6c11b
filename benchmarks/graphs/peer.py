"""A process beside this one that runs graphs when told to: LangGraph's, or a runner that will be killed.

It is told what to do in lines of JSON on its standard input and says what came of it in lines on its standard
output, the first of which is `ready`: all that it needs is imported and connected then, and not measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
"""`scripts/peers` makes it."""
LANGGRAPH = "benchmarks.graphs.langgraph_peer"
LINE_BYTES = 2**20
TAIL = 3000
"""Characters of its last words that are shown."""


class PeerFailed(Exception):
    """The process ended before it had said what came of the work."""


class Peer:
    """One process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    async def run(self, graph: str, tenant: str, inputs: dict[str, Any], **how: Any) -> dict[str, Any]:
        """The outputs of one run. Raises `PeerFailed`."""
        assert self._process.stdin is not None
        told = {"graph": graph, "tenant": tenant, "inputs": inputs, **how}
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        outputs: dict[str, Any] = json.loads(await self.line())
        return outputs

    async def line(self) -> bytes:
        """The next thing it says. Raises `PeerFailed`."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"{self._name} has ended")
        return line

    def kill(self) -> None:
        """SIGKILL: it cleans nothing up."""
        self._process.kill()

    async def close(self) -> None:
        """Ends it, where it has not ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@asynccontextmanager
async def started(python: Path | None, module: str, *arguments: str) -> AsyncIterator[Peer]:
    """`python -m module arguments`, once it is ready; None for the Python of this process.

    Raises `PeerFailed`.
    """
    process = await asyncio.create_subprocess_exec(
        python or sys.executable,
        "-m",
        module,
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
    )
    peer = Peer(module, process)
    try:
        if await peer.line() != b"ready\n":
            raise PeerFailed(f"{module} is not what was expected")
        yield peer
    finally:
        await peer.close()


def langgraph(door: Path, *more: str) -> AbstractAsyncContextManager[Peer]:
    """LangGraph in an environment of its own, calling through the door."""
    return started(PEERS, LANGGRAPH, str(door), *more)
