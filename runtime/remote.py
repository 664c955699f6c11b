"""A runner behind a Ray Serve handle: the one place that makes and reads handle calls to runners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.errors import Overloaded, ReplicaLost
from runtime.events import RunEvent, decode_events
from runtime.request import RunRequest, encode_request

READY_WITHIN_S = 2.0
RETRY_AFTER_S = 2.0


class HandleRunner:
    """Runs graphs on the replicas of a runner deployment, with the methods of `runtime.runner.Runner`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._run = handle.options(method_name="run", stream=True)
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

    async def ready(self) -> bool:
        """Whether a runner has its plans and indexes and can start a run now."""
        response = self._ready.remote()
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                return bool(await response)
        except (TimeoutError, RayError, RayServeException):
            response.cancel()
            return False
