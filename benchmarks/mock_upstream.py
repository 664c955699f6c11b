"""An OpenAI-compatible upstream that costs next to nothing: the far end of a remote provider's pool.

    python -m benchmarks.mock_upstream --port 18081

Raw asyncio, fixed answers, no validation: what is measured in front of it is the gateway. A stream's chunks
leave one to an event-loop turn, each in a write of its own, as a real engine's would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import cast

import uvloop

CHUNKS = 20
WORDS = [("" if i == 0 else " ") + f"word{i}" for i in range(CHUNKS)]
PROMPT_TOKENS = 24
DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": CHUNKS,
    "total_tokens": PROMPT_TOKENS + CHUNKS,
}


def completion(model: str = "mock") -> dict[str, object]:
    """A whole chat completion of `CHUNKS` tokens."""
    message = {"role": "assistant", "content": "".join(WORDS)}
    return {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _USAGE,
    }


def chunks(model: str = "mock") -> Iterator[dict[str, object]]:
    """The same as a stream: `CHUNKS` content chunks, the finish, the usage."""
    base = {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }
    for i, word in enumerate(WORDS):
        delta = {"role": "assistant", "content": word} if i == 0 else {"content": word}
        yield base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield base | {"choices": [], "usage": _USAGE}


def events(model: str = "mock") -> list[bytes]:
    """The stream as server-sent events, `[DONE]` included."""
    return [*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks(model)), DONE]


def _whole_response() -> bytes:
    body = json.dumps(completion()).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _stream_writes() -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    framed = [f"{len(event):x}\r\n".encode() + event + b"\r\n" for event in events()]
    return [head + framed[0], *framed[1:-1], framed[-1] + b"0\r\n\r\n"]


class Upstream(asyncio.Protocol):
    """One connection. Answers requests in order; a second request waits for the first one's stream."""

    whole = _whole_response()
    stream = _stream_writes()

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by duck typing only

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._serve()

    def _serve(self) -> None:
        while not self._streaming:
            head_end = self._buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return
            length = _LENGTH.search(self._buffer, 0, head_end + 2)
            end = head_end + 4 + (int(length.group(1)) if length else 0)
            if len(self._buffer) < end:
                return
            streamed = _STREAM.search(self._buffer, head_end, end) is not None
            del self._buffer[:end]
            self._answer(streamed)

    def _answer(self, streamed: bool) -> None:
        assert self._transport is not None
        if streamed:
            self._streaming = True
            self._send(0)
        else:
            self._transport.write(self.whole)

    def _send(self, index: int) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._transport.write(self.stream[index])
        if index + 1 < len(self.stream):
            asyncio.get_running_loop().call_soon(self._send, index + 1)
        else:
            self._streaming = False
            self._serve()


async def serve(port: int) -> None:
    """Listen on loopback, after saying `listening` on stdout, until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=18081, help="0 picks a free one and prints it")
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
