"""`python -m serve_apps.redeploy CONFIG ADDRESS`: deploys the application again, onto the Ray that runs it.

`serve run` would do so too, but takes all of Serve down where the new version cannot start. Here the replicas
of the last version go on, because they are only ended when their successors run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray import serve

from serve_apps.app import BuildArguments, build


def main(config: str, address: str) -> int:
    """Returns once every new replica runs. The exit status: 1 where one cannot start."""
    application = build(BuildArguments(config=Path(config)))
    ray.init(address=address, namespace="serve", log_to_driver=False)
    try:
        serve.run(application)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
