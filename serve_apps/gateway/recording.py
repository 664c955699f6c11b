"""Answers a request that carries an `Idempotency-Key` once, and once more without doing it again.

    claim ─► the endpoint answers, through the exchange ─► each message is heard ─► before the last: kept

What is kept is what the client was told: a whole answer, or a stream of events as bytes. An error is kept
only where the call has cost tokens; else the key is free again, and a retry can succeed.
"""

from __future__ import annotations

import re

from serve_apps.gateway.deps import Request
from serve_apps.gateway.errors import BadRequest, Header
from serve_apps.gateway.http import ASGIMessage, Exchange
from serve_apps.gateway.idempotency import MAX_ANSWER_BYTES, Claim, KeptAnswer, fingerprint_of

REPLAYED: Header = (b"idempotent-replayed", b"true")

_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_OF_THE_REQUEST = (
    b"x-request-id",
    b"request-id",
    b"x-ratelimit-",
    b"anthropic-ratelimit-",
    b"content-length",
)
"""Beginnings of headers that say something of one request, not of its answer."""


class Recorder:
    """Hears what is sent to a client."""

    def __init__(self, exchange: Exchange, claim: Claim) -> None:
        self._exchange = exchange
        self._claim = claim
        self._status = 0
        self._headers: list[Header] = []
        self._body = bytearray()
        self._too_large = False
        self._closed = False

    async def hear(self, message: ASGIMessage) -> None:
        """A message that is about to be sent. At the last one the answer is kept, or the key released."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [
                (name, value)
                for name, value in message["headers"]
                if not name.lower().startswith(_OF_THE_REQUEST)
            ]
            return
        part = message.get("body", b"")
        self._too_large = self._too_large or len(self._body) + len(part) > MAX_ANSWER_BYTES
        if not self._too_large and part != self._exchange.wording.heartbeat:
            self._body += part
        if not message.get("more_body", False) and (self._status < 400 or self._exchange.spent):
            self._closed = True
            whole = None if self._too_large else KeptAnswer(self._status, self._headers, bytes(self._body))
            await self._claim.keep(whole)

    def close(self) -> None:
        """Releases the key if no answer was kept."""
        if not self._closed:
            self._closed = True
            self._claim.release()


async def answered_before(request: Request) -> bool:
    """Whether the request carries an idempotency key and was answered with what is kept under it.

    Where it carries one that is new, what the exchange sends from here on is recorded. Raises `BadRequest`,
    `Conflict`, `Unprocessable`, `StoreUnavailable`.
    """
    gateway, exchange, caller = request
    given = exchange.headers.get(b"idempotency-key")
    if given is None:
        return False
    if not _KEY.fullmatch(given):
        raise BadRequest(
            "'Idempotency-Key' must be 1 to 255 visible ASCII characters.",
            param="idempotency-key",
            code="invalid_value",
        )
    body = await exchange.body(gateway.settings.max_body_bytes)
    found = await gateway.answers.claim(
        caller, given, fingerprint_of(exchange.path, exchange.wants_events, body)
    )
    if isinstance(found, Claim):
        exchange.recorder = Recorder(exchange, found)
        return False
    exchange.added_headers.append(REPLAYED)
    await exchange.respond(found.status, found.body, found.headers)
    return True
