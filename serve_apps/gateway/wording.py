"""In whose words a client is told what is not an answer: errors, and that its stream still lives.

OPENAI      {"error": {message, type, param, code}}          : keep-alive
ANTHROPIC   {"type": "error", "error": {type, message}, …}   event: ping
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from serve_apps.gateway.errors import GatewayError, Header
from serve_apps.gateway.rate_headers import in_anthropics_words


class Wording(NamedTuple):
    """How one family of routes words it."""

    error: Callable[[GatewayError, str], bytes]
    """The JSON of an error, told of the request of that id."""
    error_event: bytes
    """What precedes the data of an error on a stream."""
    heartbeat: bytes
    """Sent on a stream that was silent for long, so that no proxy in between gives up."""
    id_header: bytes | None = None
    """Where clients of this family look for the id of the request, besides `x-request-id`."""
    limits: Callable[[Sequence[Header], float], Sequence[Header]] = lambda headers, _: headers
    """What is told of limits, in OpenAI's words, in theirs; given the time as Unix seconds."""


def _openai_error(answer: GatewayError, _: str) -> bytes:
    return msgspec.json.encode({"error": answer.as_object()})


def _anthropic_error(answer: GatewayError, request_id: str) -> bytes:
    error = {"type": _ANTHROPIC_TYPES.get(answer.status, "api_error"), "message": answer.message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


_ANTHROPIC_TYPES = {
    **dict.fromkeys((400, 405, 409, 413, 415, 422), "invalid_request_error"),
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""Anthropic knows no other types; every other status is an `api_error`."""

OPENAI = Wording(_openai_error, b"", b": keep-alive\n\n")
ANTHROPIC = Wording(
    _anthropic_error,
    b"event: error\n",
    b'event: ping\ndata: {"type": "ping"}\n\n',
    b"request-id",
    in_anthropics_words,
)
