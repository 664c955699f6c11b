"""`python -m serve_apps.observe ADDRESS`: prints the cluster that runs there, as `live.Observed` in JSON.

A process of its own, because Ray reads how it must authenticate from the environment that it starts with.
"""

from __future__ import annotations

import sys

import msgspec
import ray

from cluster import live


def main(address: str) -> int:
    """The exit status: 1 where no Ray answers at that address."""
    try:
        ray.init(address=address, namespace="serve", log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"no Ray answers at {address}: {error}\n")
        return 1
    observed = live.Observed(live.nodes(), live.deployed())
    sys.stdout.write(msgspec.json.encode(observed).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
