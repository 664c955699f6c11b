"""The config file of Ray Serve, for `serve deploy` and `serve run`: which application, and with which config.

What runs stands in the deploy config alone, which the application reads when it is built. Serve builds it
anew only where this file is another one, so the file carries a digest of what it was made from. The policy by
which replicas come and go stands in here too, for Serve takes that of a whole application from nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from cluster.autoscaling.model import Scaling
from cluster.autoscaling.serve_policy import PATH

APPLICATION = "clustergraph"
IMPORT_PATH = "serve_apps.app:build"


def serve_config(
    config: str,
    *,
    host: str,
    port: int,
    revision: str,
    scaling: Scaling | None = None,
    name: str = APPLICATION,
) -> dict[str, Any]:
    """The file as a mapping.

    Args:
        config: where the deploy config is on the node that builds the application, the head.
        host: which addresses of each node to listen on, such as "127.0.0.1".
        revision: another one has the application built anew.
        scaling: of what replicas come and go; None where none do.
        name: of the application.
    """
    policy = {"policy_function": PATH, "policy_kwargs": msgspec.to_builtins(scaling)}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            {
                "name": name,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": {"config": config, "revision": revision},
            }
            | ({} if scaling is None else {"autoscaling_policy": policy})
        ],
    }


def revision_of(files: Iterable[bytes], hashes: Iterable[str]) -> str:
    """Of a deploy config: digest of its text, and of the graphs as they are planned."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (*files, *(each.encode() for each in sorted(hashes))):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
