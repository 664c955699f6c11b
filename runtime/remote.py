"""A runner behind a Ray Serve handle: the one place that makes and reads handle calls to runners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import msgspec
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.errors import Overloaded, ReplicaLost
from cluster.messages import Failure
from runtime.durability.model import Checkpoint
from runtime.errors import from_failure
from runtime.events import RunEvent, decode_events
from runtime.request import RunRequest, encode_request

READY_WITHIN_S = 2.0
RETRY_AFTER_S = 2.0

encode_checkpoints = msgspec.msgpack.Encoder().encode
decode_checkpoints = msgspec.msgpack.Decoder(list[Checkpoint]).decode
encode_failure = msgspec.msgpack.Encoder().encode
decode_failure = msgspec.msgpack.Decoder(Failure).decode


class HandleRunner:
    """Runs graphs on the replicas of a runner deployment, with the methods of `runtime.runner.Runner`."""

    def __init__(self, handle: DeploymentHandle, *, on_demand: bool = False) -> None:
        """`on_demand`: there may be no replica until somebody calls, and the call waits for one."""
        self._on_demand = on_demand
        self._run = handle.options(method_name="run", stream=True)
        self._start = handle.options(method_name="start")
        self._resume = handle.options(method_name="resume")
        self._ready = handle.options(method_name="ready")

    async def run(self, request: RunRequest) -> AsyncGenerator[list[RunEvent], None]:
        """Batches of the run's events. Closing this cancels the run.

        Raises `ReplicaLost` when the runner died, `Overloaded` when its queue is full.
        """
        response = self._run.remote(encode_request(request))
        try:
            async for item in response:
                yield decode_events(item)
        except BackPressureError as error:
            raise Overloaded("the queue of the runner is full", retry_after_s=RETRY_AFTER_S) from error
        except (RayError, RayServeException) as error:
            raise ReplicaLost(f"the runner of this graph died ({type(error).__name__})") from error
        finally:
            response.cancel()

    async def start(self, request: RunRequest, done: Sequence[Checkpoint] = ()) -> None:
        """Begins a run in the background, as `Runner.start`. Raises `ReplicaLost`, `Overloaded` too."""
        await self._told(self._start, encode_request(request), encode_checkpoints(done))

    async def resume(self, tenant: str, run_id: str, deadline: float | None = None) -> None:
        """Has a run go on, as `Runner.resume`. Raises `ReplicaLost`, `Overloaded` too."""
        await self._told(self._resume, tenant, run_id, deadline)

    async def _told(self, method: DeploymentHandle, *arguments: object) -> None:
        """Calls a method that says with a failure what went wrong, and with nothing that it went well."""
        try:
            refused: bytes = await method.remote(*arguments)
        except BackPressureError as error:
            raise Overloaded("the queue of the runner is full", retry_after_s=RETRY_AFTER_S) from error
        except (RayError, RayServeException) as error:
            raise ReplicaLost(f"the runner of this graph died ({type(error).__name__})") from error
        if refused:
            raise from_failure(decode_failure(refused))

    async def ready(self) -> bool:
        """Whether a runner has its plans and indexes and can start a run now. One on demand always is: to ask
        it would be to start it."""
        if self._on_demand:
            return True
        response = self._ready.remote()
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                return bool(await response)
        except (TimeoutError, RayError, RayServeException):
            response.cancel()
            return False
