"""Watches a model's engine from inside the system's Ray cluster: a line of JSON whenever its state changes.

Run as `python -m tests.e2e.engine_status MODEL` with the system's environment; ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import msgspec
import ray
from ray import serve

from cluster.messages import decode_status

POLL_S = 0.02


async def watch(model: str) -> None:
    handle = serve.get_deployment_handle(f"model-{model}", app_name="default").options(method_name="status")
    last = None
    while True:
        status = decode_status(await handle.remote())
        # Else every look at a busy engine is a change.
        counts = msgspec.structs.replace(status, busy_ns=0, admission=None)
        if counts != last:
            print(json.dumps({"at": time.time(), **msgspec.to_builtins(status)}), flush=True)
        last = counts
        await asyncio.sleep(POLL_S)


async def main() -> None:
    watching = asyncio.create_task(watch(sys.argv[1]))
    await asyncio.to_thread(sys.stdin.read)
    watching.cancel()


if __name__ == "__main__":
    ray.init(address="127.0.0.1:6380", namespace="serve", log_to_driver=False)
    asyncio.run(main())
