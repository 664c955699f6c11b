"""TensorZero's gateway as its Python wheel carries it: `python -m benchmarks.tensorzero_peer UPSTREAM`.

Runs in an environment of its own, `.venv-peers`, and imports nothing of ours. Says where it listens, and ends
with its standard input. It keeps no record of calls, as no database is given.
"""

from __future__ import annotations

import os
import sys
import tempfile
from urllib.parse import urlsplit

# The wheel's own way to a gateway over HTTP, which its `patch_openai_client` calls.
from tensorzero import _start_http_gateway

CONFIG = """
[models.mock]
routing = ["upstream"]

[models.mock.providers.upstream]
type = "openai"
model_name = "mock"
api_base = "{upstream}"
api_key_location = "none"
"""


def main() -> None:
    said = os.dup(1)
    os.dup2(2, 1)  # it logs where nobody reads once the port is known
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(CONFIG.format(upstream=sys.argv[1]))
        config.flush()
        gateway = _start_http_gateway(
            config_file=config.name,
            clickhouse_url=None,
            postgres_url=None,
            valkey_url=None,
            async_setup=False,
        )
        os.write(said, f"listening on {urlsplit(gateway.base_url).port}\n".encode())
        sys.stdin.read()
        gateway.close()


if __name__ == "__main__":
    main()
