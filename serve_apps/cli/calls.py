"""Calls of the command line to a gateway, with a key, as any client makes them."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from cluster.errors import ClusterError
from runtime.records.model import RunRecord
from serve_apps.api.run_answers import RunAccepted, RunAnswer
from serve_apps.api.runs import CancelAnswer, RunList
from serve_apps.api.usage import UsageReport
from serve_apps.cli.demo import demo_key_file
from serve_apps.cli.options import QUICKSTART
from serve_apps.settings import load_settings

TIMEOUT_S = 30.0
MAX_WAIT_S = 660.0
"""For a run: longer than any gateway lets one take."""
FOLLOW_TIMEOUT_S = 45.0
"""Of silence on a stream of events: a gateway sends a comment more often."""
RECONNECTS = 5
"""Connections that may be lost one after the other."""
RECONNECT_PAUSE_S = 1.0
LAST = ("run_finished", "run_failed", "run_suspended")
"""Types of events behind which a run does not go on by itself."""

T = TypeVar("T")


class CallFailed(ClusterError):
    """The gateway could not be reached, or refused; the message is for whoever typed the command."""


class _Broken(Exception):
    """A stream of events that ended before its last."""


class GatewayClient:
    """A gateway's API of runs and usage. Every method raises `CallFailed`."""

    def __init__(self, url: str, key: str | None) -> None:
        """Without a key the demo key that `up` made on this machine is used. Raises `CallFailed`."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise CallFailed(f"the URL of a gateway begins with http:// or https://, not {url!r}")
        self._url = url.rstrip("/").removesuffix("/v1")
        self._key = key or _demo_key()

    def run(self, run_id: str) -> RunRecord:
        return self._call("GET", f"/v1/runs/{quote(run_id, safe='')}", RunRecord)

    def runs(self, limit: int, graph: str | None, after: str | None, status: str | None = None) -> RunList:
        given = {"limit": limit, "graph": graph, "after": after, "status": status}
        return self._call("GET", f"/v1/runs?{_query(given)}", RunList)

    def usage(self, asked: Mapping[str, Any]) -> UsageReport:
        return self._call("GET", f"/v1/usage?{_query(asked)}", UsageReport)

    def cancel(self, run_id: str) -> CancelAnswer:
        return self._call("POST", f"/v1/runs/{quote(run_id, safe='')}/cancel", CancelAnswer)

    def start(self, graph: str, body: Mapping[str, Any], timeout_s: float | None) -> RunAnswer | RunAccepted:
        """Runs a graph. One that goes on by itself, or waits for people, is accepted."""
        return self._launch(f"/v1/graphs/{quote(graph, safe='')}/runs", body, timeout_s)

    def resume(self, run_id: str, timeout_s: float | None) -> RunAccepted:
        accepted = self._launch(f"/v1/runs/{quote(run_id, safe='')}/resume", {}, timeout_s)
        assert isinstance(accepted, RunAccepted)
        return accepted

    def fork(self, run_id: str, body: Mapping[str, Any], timeout_s: float | None) -> RunAnswer | RunAccepted:
        return self._launch(f"/v1/runs/{quote(run_id, safe='')}/fork", body, timeout_s)

    def events(self, run_id: str, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """The events behind number `after` with their numbers, as they happen, until one of `LAST` is among
        them. A connection that is lost is made again, and goes on where it was."""
        begun, lost = False, 0
        while True:
            try:
                for number, event in self._events(run_id, after):
                    after, begun, lost = number, True, 0
                    yield number, event
                    if event["type"] in LAST:
                        return
                raise _Broken("the events ended before the run")
            except (_Broken, CallFailed) as error:
                lost += 1
                if lost > RECONNECTS or not begun:
                    raise CallFailed(str(error)) from error
                time.sleep(RECONNECT_PAUSE_S * lost)

    def _events(self, run_id: str, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        headers = {"last-event-id": str(after)}
        path = f"/v1/runs/{quote(run_id, safe='')}/events"
        with self._answer("GET", path, None, headers, FOLLOW_TIMEOUT_S) as response:
            number = 0
            name = b""
            try:
                for line in response:
                    field, _, value = line.rstrip(b"\n").partition(b": ")
                    if field == b"id":
                        number = int(value)
                    elif field == b"event":
                        name = value
                    elif field == b"data":
                        if name == b"error":
                            raise _Broken(msgspec.json.decode(value)["error"]["message"])
                        yield number, msgspec.json.decode(value)
            except (OSError, HTTPException) as error:
                raise _Broken(error) from error

    def _launch(self, path: str, body: Mapping[str, Any], timeout_s: float | None) -> RunAnswer | RunAccepted:
        headers = {} if timeout_s is None else {"x-request-timeout": f"{timeout_s:g}"}
        wait = MAX_WAIT_S if timeout_s is None else timeout_s + TIMEOUT_S
        with self._answer("POST", path, msgspec.json.encode(body), headers, wait) as response:
            if response.status == HTTPStatus.ACCEPTED:
                return self._decode(response.read(), RunAccepted)
            return self._decode(response.read(), RunAnswer)

    def _call(self, method: str, path: str, kind: type[T], body: Mapping[str, Any] | None = None) -> T:
        encoded = None if body is None else msgspec.json.encode(body)
        with self._answer(method, path, encoded, {}, TIMEOUT_S) as response:
            return self._decode(response.read(), kind)

    def _decode(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise CallFailed(f"{self._url} is no gateway of this version: {error}") from error

    @contextmanager
    def _answer(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> Iterator[HTTPResponse]:
        """A response that is no error."""
        given = {"authorization": f"Bearer {self._key}", "content-type": "application/json", **headers}
        request = urllib.request.Request(  # noqa: S310  (the scheme was looked at)
            self._url + path, body, given, method=method
        )
        try:
            response = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310
        except urllib.error.HTTPError as error:
            raise CallFailed(_told(error)) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise CallFailed(f"there is no answer from {self._url}: {reason}") from error
        with response:
            yield response


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
