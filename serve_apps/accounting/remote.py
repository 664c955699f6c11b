"""A `UsageBook` in another process, behind a Ray Serve handle. Errors travel by their names."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serve_apps.accounting.book import UsageAnswer, UsageBook, UsageUnavailable
from serve_apps.accounting.queries import TooMuch, UsageQuery

TOO_MUCH: Final = "TooMuch"

_encode = msgspec.msgpack.Encoder().encode
_decode_query = msgspec.msgpack.Decoder(UsageQuery).decode
_decode_reply = msgspec.msgpack.Decoder(UsageAnswer | str).decode


class HandleBook:
    """The end of whoever asks."""

    def __init__(self, handle: Any) -> None:
        self._ask = handle.options(method_name="ask")

    async def ask(self, query: UsageQuery) -> UsageAnswer:
        try:
            answer: UsageAnswer | str = _decode_reply(await self._ask.remote(_encode(query)))
        except (RayError, RayServeException) as error:
            raise UsageUnavailable(type(error).__name__) from error
        if answer == TOO_MUCH:
            raise TooMuch
        if isinstance(answer, str):
            raise UsageUnavailable(answer)
        return answer


async def reply_of(book: UsageBook, payload: bytes) -> bytes:
    """The end of whoever is asked."""
    try:
        return _encode(await book.ask(_decode_query(payload)))
    except TooMuch:
        return _encode(TOO_MUCH)
    except UsageUnavailable as error:
        return _encode(str(error))
