"""`python -m serve_apps.hosting CONFIG ADDRESS`: the application on a Ray that runs, until it is interrupted.

    deploy ─► wait ─► SIGINT ─► gateways end what is in flight ─► Serve is shut down ─► gone

`serve run` does that too, but for two things. It waits for calls in flight for as long as it may, and then
ends their processes under them. And its interpreter, once Ray's client in it has ended, has been seen to hang
for good: 2 of 80 interrupts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cluster.errors import ClusterError
from graphs.errors import PipelineError
from serve_apps.redeploy import NAME, deploy

GRACE_S = 2.0
"""Of calls in flight."""
ANSWER_S = 10.0
"""How long all gateways together may take to end them."""

_log = logging.getLogger(__name__)


def main(config: str, address: str) -> int:
    """Returns once it is taken down again. The exit status: 1 where it cannot start."""
    ray.init(address=address, namespace="serve")
    try:
        deploy(Path(config))
        while True:
            signal.pause()
    except KeyboardInterrupt:
        asyncio.run(_take_down())
        return 0
    except (RuntimeError, ClusterError, PipelineError) as error:
        _log.error("%s", error)
        asyncio.run(serve.shutdown_async())
        return 1


async def _take_down() -> None:
    """Has every gateway end what it is asked, so that nobody's connection is merely cut; then ends all."""
    try:
        gateway = serve.get_deployment_handle("gateway", NAME)
        broken_off = await gateway.broadcast("stop", GRACE_S).results_async(timeout_s=GRACE_S + ANSWER_S)
    except (RayError, RayServeException, TimeoutError) as error:
        _log.warning("calls in flight could not be ended in order: %s", error)
    else:
        _log.warning("calls broken off: %d", sum(broken_off))
    await serve.shutdown_async()


def leave(status: int) -> NoReturn:
    """Ends this process at once: all that it had to do is done."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main(*sys.argv[1:]))
