"""No process of ours loads an engine that it does not run: seconds of its start, and half a gigabyte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ENGINES = ("vllm", "torch", "transformers", "onnxruntime", "ray.llm", "ray.serve.llm")
PROBE = """
import json, sys
from pathlib import Path

import cluster.engines.replicas      # the module that every replica unpickles
import serve_apps.deployments        # gateway, runner, accountant, keeper of the store
import serve_apps.gateway.app
import serve_apps.redeploy
import serve_apps.cli.main
from serve_apps.app import BuildArguments, build

# What Serve's controller has done in a process of its own, and `serve run` in the driver's.
build(BuildArguments(config=Path(sys.argv[1])))
print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""


def test_gateway_runner_controller_and_command_line_load_no_engine() -> None:
    config = REPOSITORY / "serve_apps" / "configs" / "quickstart.yaml"
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(config), *ENGINES],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
