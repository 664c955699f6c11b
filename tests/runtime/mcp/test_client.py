"""The client of MCP servers, on a real server in a process of its own, over both transports."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from cluster.errors import DeadlineExceeded, ModelUnavailable, ReplicaLost
from runtime.errors import NodeError
from runtime.executor.kinds.kind import ToolResult
from runtime.mcp.client import McpServer
from runtime.mcp.config import McpServerSpec

SERVED = str(Path(__file__).with_name("served.py"))
COMMAND = [sys.executable, SERVED]
SOON_S = 120


@asynccontextmanager
async def over_stdio(**fields) -> AsyncIterator[McpServer]:
    spec = McpServerSpec(command=COMMAND, **fields)
    async with aclosing(Closing("small", spec, dict.fromkeys(spec.env, "s3cret"))) as server:
        yield server


class Process:
    """The server over HTTP, which can be ended and started again at the same port."""

    def __init__(self) -> None:
        self.port = "0"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "http", self.port], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.port = self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@asynccontextmanager
async def over_http(**fields) -> AsyncIterator[McpServer]:
    process = Process()
    try:
        spec = McpServerSpec(url=f"http://127.0.0.1:{process.port}/mcp", **fields)
        async with aclosing(Closing("small", spec, {})) as server:
            yield server
    finally:
        process.end()


class Closing(McpServer):
    """With the name that `aclosing` asks for."""

    aclose = McpServer.close


TRANSPORTS = pytest.mark.parametrize("connected", [over_stdio, over_http], ids=["stdio", "http"])


def soon() -> float:
    return time.time() + SOON_S


@TRANSPORTS
async def test_answers(connected):
    async with connected() as server:
        assert await server.call("greet", {"name": "Ada"}, soon()) == ToolResult("Hello Ada.")
        structured = await server.call("add", {"a": 1, "b": 2}, soon())
        assert structured.data == {"sum": 3}
        assert '"sum": 3' in structured.text


async def test_the_key_of_a_call_reaches_the_server():
    async with over_stdio() as server:
        assert (await server.call("key", {}, soon(), "k-1")).text == "k-1"
        assert (await server.call("key", {}, soon())).text == "None"


@TRANSPORTS
async def test_failures_leave_the_connection_as_it_is(connected):
    async with connected(max_result_bytes=100_000) as server:
        before = await server.call("process", {}, soon())
        for tool, arguments, message in [
            ("gret", {}, r"small has no tool gret \(did you mean greet\?\)"),
            ("fail", {}, "the tool fail of small failed: Error executing tool fail"),
            ("add", {"a": "x", "b": 2}, r"failed: [\s\S]*should be a valid integer"),
            ("large", {"size": 150_000}, "150023 bytes, of 100000 at most"),
            ("large", {"size": 600_000}, "too large|600023 bytes"),
        ]:
            with pytest.raises(NodeError, match=message):
                await server.call(tool, arguments, soon())
        assert await server.call("process", {}, soon()) == before


@TRANSPORTS
async def test_calls_of_many_runs_share_one_connection(connected):
    async with connected() as server:
        answers = await asyncio.gather(*(server.call("greet", {"name": str(i)}, soon()) for i in range(20)))
        assert [answer.text for answer in answers] == [f"Hello {i}." for i in range(20)]
        pids = await asyncio.gather(*(server.call("process", {}, soon()) for _ in range(3)))
        assert len({pid.text for pid in pids}) == 1


@TRANSPORTS
async def test_a_slow_tool_is_given_up_and_others_go_on(connected):
    async with connected() as server:
        await server.call("greet", {"name": "Ada"}, soon())
        with pytest.raises(DeadlineExceeded, match="wait of small did not answer within"):
            await server.call("wait", {}, time.time() + 0.1)
        assert (await server.call("greet", {"name": "Eve"}, soon())).text == "Hello Eve."


async def test_the_time_out_of_the_server_holds_where_the_deadline_is_later():
    async with over_http(timeout_s=5) as server:
        await server.call("greet", {"name": "Ada"}, soon())
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await server.call("wait", {}, soon())
        assert time.monotonic() - began < SOON_S / 2


async def test_a_cancelled_call_leaves_the_connection_as_it_is():
    async with over_http() as server:
        await server.call("greet", {"name": "Ada"}, soon())
        waiting = asyncio.create_task(server.call("wait", {}, soon()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await server.call("greet", {"name": "Eve"}, soon())).text == "Hello Eve."


async def test_a_command_that_dies_in_a_call_is_started_again_for_the_next():
    async with over_stdio() as server:
        before = await server.call("process", {}, soon())
        with pytest.raises(ReplicaLost, match="the connection to small broke while leave was called"):
            await server.call("leave", {}, soon())
        assert await server.call("process", {}, soon()) != before


async def test_a_command_that_dies_between_calls_is_started_again():
    async with over_stdio() as server:
        pid = int((await server.call("process", {}, soon())).text)
        link = server._link
        os.kill(pid, 9)
        await link.over.wait()
        assert int((await server.call("process", {}, soon())).text) != pid


async def test_a_server_that_comes_back_is_found_again():
    process = Process()
    spec = McpServerSpec(url=f"http://127.0.0.1:{process.port}/mcp")
    async with aclosing(Closing("small", spec, {})) as server:
        before = await server.call("process", {}, soon())
        process.end()
        with pytest.raises((ReplicaLost, ModelUnavailable)):
            await server.call("process", {}, soon())
        with pytest.raises(ModelUnavailable, match="the MCP server small cannot be reached"):
            await server.call("process", {}, soon())
        process.start()
        assert await server.call("process", {}, soon()) != before
        process.end()


@pytest.mark.parametrize(
    "spec",
    [
        McpServerSpec(command=["/no/such/program"]),
        McpServerSpec(command=[sys.executable, "-c", "print('hello')"]),
        McpServerSpec(command=[sys.executable, "-c", "input(); input()"], timeout_s=0.3),
        McpServerSpec(url="http://127.0.0.1:9/mcp"),
    ],
    ids=["no program", "no server", "silent", "nobody there"],
)
async def test_what_cannot_be_reached(spec):
    server = McpServer("small", spec, {})
    for _ in range(2):
        with pytest.raises((ModelUnavailable, DeadlineExceeded)):
            await server.call("greet", {"name": "Ada"}, soon())
    await server.close()


async def test_only_the_variables_that_are_named_reach_the_command(monkeypatch):
    monkeypatch.setenv("OTHER_SECRET", "s3cret")
    async with over_stdio(env=["TOKEN"]) as server:
        assert (await server.call("variable", {"name": "TOKEN"}, soon())).text == "s3cret"
        assert (await server.call("variable", {"name": "OTHER_SECRET"}, soon())).text == "not set"


async def test_a_closed_server_has_no_process():
    server = McpServer("small", McpServerSpec(command=COMMAND), {})
    await server.close()
    pid = int((await server.call("process", {}, soon())).text)
    await server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
