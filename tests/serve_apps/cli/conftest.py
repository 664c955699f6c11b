"""A gateway for the command line to talk to: it answers what it is told to, and keeps what it is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest


@dataclass
class FakeGateway:
    url: str = ""
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """By method and path, as `GET /v1/runs/x`."""
    streams: dict[str, list[bytes]] = field(default_factory=dict)
    """By method and path: what each connection in turn is told."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Method and path, and the header `Authorization`."""
    sent: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Headers in small letters, and body."""

    def answer(self, call: str, body: object, status: int = 200) -> None:
        self.answers[call] = (status, msgspec.json.encode(body))


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    fake = FakeGateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            call = f"{self.command} {self.path}"
            fake.asked.append((call, self.headers["authorization"]))
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fake.sent.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status, body = fake.answers.get(call, (404, b"no JSON"))
            if call in fake.streams:
                status, body = 200, fake.streams[call].pop(0)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield fake
        server.shutdown()
        serving.join()
