"""A pool of replicas behind a Ray Serve handle: the one place that makes and reads handle calls to models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, cast

import structlog
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.errors import (
    ClusterError,
    EngineFailed,
    ModelUnavailable,
    Overloaded,
    ReplicaLost,
    from_failure,
)
from cluster.interface import Batch, ModelInfo
from cluster.messages import (
    Embed,
    Embeddings,
    EngineStatus,
    Event,
    Failure,
    Generate,
    decode_embeddings,
    decode_events,
    decode_status,
    encode,
)
from cluster.routing.beside import Beside
from cluster.tokens import TokenCounter

ATTEMPTS = 3
"""Replicas tried for a call of which nothing has reached the caller yet."""
READY_WITHIN_S = 2.0
RETRY_AFTER_S = 2.0
_SERIALIZATION: Any = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""Of the bytes that we pass. Serve's default, cloudpickle, takes six times as long over them."""

log = structlog.get_logger(__name__)


class HandlePool:
    """Implements `cluster.interface.Pool` over `engines.serving.EngineEndpoint` replicas."""

    def __init__(
        self, info: ModelInfo, handle: DeploymentHandle, counter: TokenCounter, *, on_demand: bool = False
    ) -> None:
        """`on_demand`: it may have no replica until somebody calls, and the call waits for one."""
        self.info = info
        self._on_demand = on_demand
        self._call = handle.options(method_name="call", **_SERIALIZATION)
        self._stream = handle.options(method_name="stream", stream=True, **_SERIALIZATION)
        self._status = handle.options(method_name="status", **_SERIALIZATION)
        self._counter = counter

    def count_tokens(self, call: Generate | Embed) -> int:
        return self._counter.count(call)

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        payload = encode(call)
        for attempt in range(1, ATTEMPTS + 1):
            started = False
            beside = Beside(call)
            try:
                if not call.stream:
                    yield _batch(decode_events(await self._once(payload, beside)))
                    return
                response = self._stream.remote(payload, beside)
                try:
                    async for item in response:
                        events = decode_events(item)
                        if not started:
                            beside.answering()
                        if len(events) > 1 and isinstance(events[-1], Failure):
                            started = True
                            yield _batch(events[:-1])
                            events = events[-1:]
                        batch = _batch(events)
                        started = True
                        yield batch
                    return
                finally:
                    response.cancel()
            except (RayError, RayServeException) as error:
                lost = self._explain(error, beside)
                if started or attempt == ATTEMPTS or not _worth_retrying(lost, call.deadline):
                    raise lost from error
                log.warning("replica_lost_retrying", model=self.info.name, request_id=call.request_id)
            finally:
                beside.end()

    async def embed(self, call: Embed) -> Embeddings:
        payload = encode(call)
        for attempt in range(1, ATTEMPTS + 1):
            beside = Beside(call)
            try:
                reply: Embeddings | Failure = decode_embeddings(await self._once(payload, beside))
            except (RayError, RayServeException) as error:
                lost = self._explain(error, beside)
                if attempt == ATTEMPTS or not _worth_retrying(lost, call.deadline):
                    raise lost from error
                continue
            finally:
                beside.end()
            if isinstance(reply, Failure):
                raise from_failure(reply)
            return reply
        raise AssertionError("the last attempt returns or raises")

    async def ready(self) -> bool:
        """A pool on demand always is: to ask its replicas would be to start one."""
        if self._on_demand:
            return True
        response = self._status.remote()
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await response
        except (TimeoutError, RayError, RayServeException):
            response.cancel()
            return False
        return True

    async def statuses(self) -> list[EngineStatus]:
        """Of every replica that answers soon. Never raises."""
        try:
            told = await self._status.broadcast("status").results_async(timeout_s=READY_WITHIN_S)
        except (TimeoutError, RayError, RayServeException, RuntimeError):
            return []
        return [decode_status(each) for each in told]

    async def _once(self, payload: bytes, beside: Beside) -> bytes:
        response = self._call.remote(payload, beside)
        try:
            return cast("bytes", await response)
        except asyncio.CancelledError:
            response.cancel()
            raise

    def _explain(self, error: Exception, beside: Beside) -> ClusterError:
        """What a Ray error means for the caller, in our terms."""
        model = self.info.name
        if isinstance(error, BackPressureError):
            return Overloaded(f"the queue of model {model} is full", retry_after_s=RETRY_AFTER_S)
        if isinstance(error, DeploymentUnavailableError):
            return ModelUnavailable(f"model {model} failed to deploy", retry_after_s=30)
        if _is_actor_error(error):
            beside.lost()
            return ReplicaLost(f"the replica of model {model} that worked on this died")
        return EngineFailed(f"the call to model {model} failed: {type(error).__name__}")


def _batch(events: list[Event]) -> Batch:
    last: Any = events[-1] if events else None
    if isinstance(last, Failure):
        raise from_failure(last)
    return cast("Batch", events)


def _is_actor_error(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ActorDiedError", "ActorUnavailableError", "RayActorError", "NodeDiedError"})


def _worth_retrying(error: ClusterError, deadline: float) -> bool:
    return isinstance(error, ReplicaLost) and time.time() < deadline
