"""A client of MCP servers: one connection to each, kept, and made again after it was lost.

The connection belongs to a task of its own, since its library wants it opened and closed by the same one;
calls of any number of runs share it. A call that was under way when the connection broke is not sent again:
whether the server had acted on it is not known. That is for the node's own `retry` to say.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import msgspec
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, CallToolResult, TextContent
from pydantic import ValidationError

from cluster.errors import ClusterError, DeadlineExceeded, ModelUnavailable, ReplicaLost
from graphs.errors import nearest
from runtime.errors import NodeError
from runtime.executor.kinds.kind import ToolResult
from runtime.mcp.config import McpServerSpec
from runtime.mcp.streams import BoundedTransport, Watched
from runtime.values import value_fault

logger = logging.getLogger(__name__)

MAX_TOOLS = 1_000
MAX_ERROR_CHARS = 500
RETRY_AFTER_S = 2.0
KEY_FIELD = "idempotencyKey"
"""Of the `_meta` of a call of a tool."""
IDLE_READ_S = 300.0
"""How long an HTTP server may be silent on a stream that it keeps open."""


class McpServer:
    """One server. Connects at the first call."""

    def __init__(self, name: str, spec: McpServerSpec, secrets: Mapping[str, str]) -> None:
        """`secrets` are the environment variables that the spec names."""
        self._name = name
        self._spec = spec
        self._secrets = secrets
        self._link: _Link | None = None

    async def call(
        self, tool: str, arguments: Mapping[str, Any], deadline: float, key: str | None = None
    ) -> ToolResult:
        """What the tool answers, within the server's time-out and `deadline` (Unix seconds).

        The server is told the `key` as `idempotencyKey` in `_meta`: a call with the same key is the same.

        Raises `NodeError` for a tool that is not there, one that fails and an answer that is too large;
        `DeadlineExceeded`; `ModelUnavailable` where there is no connection, `ReplicaLost` where it broke.
        """
        seconds = min(self._spec.timeout_s, deadline - time.time())
        try:
            async with asyncio.timeout(seconds):
                return await self._call(tool, arguments, key)
        except TimeoutError as error:
            message = f"the tool {tool} of {self._name} did not answer within {max(0.0, seconds):.3g} s"
            raise DeadlineExceeded(message) from error

    async def close(self) -> None:
        """Ends the connection, and the process where the server is one."""
        if self._link is not None:
            await self._link.close()

    async def _call(self, tool: str, arguments: Mapping[str, Any], key: str | None) -> ToolResult:
        link = self._linked()
        client = await link.client()
        try:
            await self._find(link, client, tool)
            meta: Any = None if key is None else {KEY_FIELD: key}
            answer = await client.call_tool(tool, dict(arguments), meta=meta)
        except MCPError as error:
            if error.code not in (CONNECTION_CLOSED, INVALID_REQUEST):
                raise self._failed(tool, error.message) from error
            link.over.set()
            message = f"the connection to {self._name} broke while {tool} was called: {error.message}"
            raise ReplicaLost(message[:MAX_ERROR_CHARS]) from error
        except (ValidationError, RuntimeError) as error:
            raise self._failed(tool, "its answer is not what it declares") from error
        return self._result(tool, answer)

    def _linked(self) -> _Link:
        if self._link is None or self._link.over.is_set():
            self._link = _Link(self._name, self._spec, self._secrets)
        return self._link

    async def _find(self, link: _Link, client: Client, tool: str) -> None:
        """Raises `NodeError` where the server, asked again if need be, has no such tool."""
        if tool not in link.tools:
            link.tools = await _tools(client)
        if tool not in link.tools:
            hint = nearest(tool, link.tools)
            raise NodeError(f"{self._name} has no tool {tool}" + (f" ({hint})" if hint else ""), param="tool")

    def _result(self, tool: str, answer: CallToolResult) -> ToolResult:
        text = "\n".join(block.text for block in answer.content if isinstance(block, TextContent))
        if answer.is_error:
            raise self._failed(tool, text)
        result = ToolResult(text, answer.structured_content)
        fault = value_fault([result.text, result.data])
        if fault is not None:
            raise self._failed(tool, f"its answer cannot be used: {fault}")
        size = len(msgspec.json.encode(result))
        if size > self._spec.max_result_bytes:
            raise self._failed(tool, f"its answer has {size} bytes, of {self._spec.max_result_bytes} at most")
        return result

    def _failed(self, tool: str, why: str) -> NodeError:
        return NodeError(f"the tool {tool} of {self._name} failed: {why}"[:MAX_ERROR_CHARS])


class _Link:
    """One connection, from its beginning to its end."""

    def __init__(self, name: str, spec: McpServerSpec, secrets: Mapping[str, str]) -> None:
        self.over = asyncio.Event()
        """Set when it is of no more use; whoever sets it ends it."""
        self.tools: frozenset[str] = frozenset()
        self._name = name
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._holder = asyncio.create_task(self._hold(spec, secrets))

    async def client(self) -> Client:
        """Waits for the connection. Raises `ModelUnavailable`."""
        await asyncio.wait([self._client])
        return self._client.result()

    async def close(self) -> None:
        self.over.set()
        await asyncio.wait([self._holder])

    async def _hold(self, spec: McpServerSpec, secrets: Mapping[str, str]) -> None:
        """Opens it, keeps it until it is over, closes it."""
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(spec.timeout_s):
                    transport = _watched(_transport(spec, secrets), self.over)
                    client = await stack.enter_async_context(Client(transport, cache=None))
                    self.tools = await _tools(client)
                self._client.set_result(client)
                await self.over.wait()
        except Exception as error:  # noqa: BLE001  (whatever the library makes of it, the connection is gone)
            logger.warning("the connection to the MCP server %s ended: %s", self._name, _kind(error))
            if not self._client.done():
                self._client.set_exception(_unavailable(self._name))
        finally:
            self.over.set()
            if not self._client.done():
                self._client.set_exception(_unavailable(self._name))


def _unavailable(name: str) -> ClusterError:
    return ModelUnavailable(f"the MCP server {name} cannot be reached", retry_after_s=RETRY_AFTER_S)


def _kind(error: BaseException) -> str:
    """What an error is, without what it says: that may hold an address with a secret."""
    if isinstance(error, BaseExceptionGroup):
        return _kind(error.exceptions[0])
    return type(error).__name__


async def _tools(client: Client) -> frozenset[str]:
    """The names of the tools, the first `MAX_TOOLS` of them."""
    names: set[str] = set()
    cursor: str | None = None
    while len(names) < MAX_TOOLS:
        page = await client.list_tools(cursor=cursor)
        names.update(tool.name for tool in page.tools)
        cursor = page.next_cursor
        if cursor is None or not page.tools:
            break
    return frozenset(names)


@asynccontextmanager
async def _watched(transport: AbstractAsyncContextManager[Any], over: asyncio.Event) -> AsyncGenerator[Any]:
    """The transport, which sets `over` when the server ends it."""
    async with transport as (read, write):
        yield Watched(read, over), write


def _transport(spec: McpServerSpec, secrets: Mapping[str, str]) -> AbstractAsyncContextManager[Any]:
    if spec.command is not None:
        program, *arguments = spec.command
        return stdio_client(StdioServerParameters(command=program, args=arguments, env=dict(secrets)))
    assert spec.url is not None
    return _http(spec, spec.url, secrets)


@asynccontextmanager
async def _http(spec: McpServerSpec, url: str, secrets: Mapping[str, str]) -> AsyncGenerator[Any]:
    headers = {} if spec.token_env is None else {"Authorization": f"Bearer {secrets[spec.token_env]}"}
    limits = httpx2.Timeout(spec.timeout_s, read=max(spec.timeout_s, IDLE_READ_S))
    transport = BoundedTransport(spec.max_result_bytes)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=limits, transport=transport) as client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=2 * spec.max_result_bytes
        ) as streams,
    ):
        yield streams
