"""Calls of the command line to a gateway, with a key, as any client makes them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from cluster.errors import ClusterError
from runtime.records.model import RunRecord
from serve_apps.api.runs import CancelAnswer, RunList
from serve_apps.cli.demo import demo_key_file
from serve_apps.cli.options import QUICKSTART
from serve_apps.settings import load_settings

TIMEOUT_S = 30.0

T = TypeVar("T")


class CallFailed(ClusterError):
    """The gateway could not be reached, or refused; the message is for whoever typed the command."""


class GatewayClient:
    """A gateway's API of runs. Every method raises `CallFailed`."""

    def __init__(self, url: str, key: str | None) -> None:
        """Without a key the demo key that `up` made on this machine is used. Raises `CallFailed`."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise CallFailed(f"the URL of a gateway begins with http:// or https://, not {url!r}")
        self._url = url.rstrip("/").removesuffix("/v1")
        self._key = key or _demo_key()

    def run(self, run_id: str) -> RunRecord:
        return self._call("GET", f"/v1/runs/{quote(run_id, safe='')}", RunRecord)

    def runs(self, limit: int, graph: str | None, after: str | None) -> RunList:
        given = {"limit": limit, "graph": graph, "after": after}
        return self._call("GET", f"/v1/runs?{_query(given)}", RunList)

    def cancel(self, run_id: str) -> CancelAnswer:
        return self._call("POST", f"/v1/runs/{quote(run_id, safe='')}/cancel", CancelAnswer)

    def _call(self, method: str, path: str, kind: type[T]) -> T:
        request = urllib.request.Request(  # noqa: S310  (the scheme was looked at)
            self._url + path, method=method, headers={"authorization": f"Bearer {self._key}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                return msgspec.json.decode(response.read(), type=kind)
        except urllib.error.HTTPError as error:
            raise CallFailed(_told(error)) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise CallFailed(f"there is no answer from {self._url}: {reason}") from error
        except msgspec.MsgspecError as error:
            raise CallFailed(f"{self._url} is no gateway of this version: {error}") from error


def _told(error: urllib.error.HTTPError) -> str:
    """What the gateway says for itself, else the bare status."""
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code} {error.reason}"


def _query(given: Mapping[str, Any]) -> str:
    return urlencode({name: value for name, value in given.items() if value is not None})


def _demo_key() -> str:
    file = demo_key_file(load_settings(QUICKSTART))
    if not file.is_file():
        raise CallFailed("no API key: give --key, or set CLUSTERGRAPH_KEY")
    return file.read_text()
