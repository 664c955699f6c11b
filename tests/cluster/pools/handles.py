"""Stand-ins for Ray Serve handles: to scripted replies, or to an endpoint in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

from ray.serve.handle import DeploymentHandle

from cluster.engines.serving import EngineEndpoint


class Response:
    """What `remote` returns: awaitable or iterable; cancelling it ends the call in its replica."""

    def __init__(self, replica: Any) -> None:
        self._replica = replica
        self._task: asyncio.Task[Any] | None = None
        self.cancelled = False
        self.ended = False

    def __await__(self) -> Any:
        return self._await().__await__()

    async def _await(self) -> Any:
        self._task = asyncio.ensure_future(self._replica)
        return await self._task

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> Any:
        self._task = asyncio.ensure_future(anext(self._replica))
        try:
            return await self._task
        except BaseException:
            self.ended = True
            raise

    def cancel(self) -> None:
        """Best effort and at once, as Serve's: what it stops, stops later."""
        self.cancelled = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
        if isinstance(self._replica, AsyncGenerator) and not self.ended:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._replica.aclose()


class Handle:
    """A handle whose methods are `methods`; `responses` are those given so far."""

    def __init__(self, **methods: Callable[..., Awaitable[bytes] | AsyncGenerator[bytes, None]]) -> None:
        self._methods = methods
        self.responses: list[Response] = []

    def options(
        self,
        *,
        method_name: str,
        request_serialization: str,
        response_serialization: str,
        stream: bool = False,
    ) -> Any:
        return _Method(self, self._methods[method_name])

    def as_handle(self) -> DeploymentHandle:
        return cast("DeploymentHandle", self)


class _Method:
    def __init__(self, handle: Handle, function: Callable[..., Any]) -> None:
        self._handle, self._function = handle, function

    def remote(self, *arguments: Any) -> Response:
        # What stands beside the bytes of a call is its router's.
        response = Response(self._function(*arguments[:1]))
        self._handle.responses.append(response)
        return response


def handle_to(endpoint: EngineEndpoint) -> Handle:
    """A handle to a replica in this process."""
    return Handle(call=endpoint.call, stream=endpoint.stream, status=endpoint.status)
