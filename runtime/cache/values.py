"""What nodes give, as bytes and back: documents and turns of a conversation come back as what they were."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.messages import Message
from graphs.documents import Document

_KINDS: tuple[type[msgspec.Struct], ...] = (Document, Message)
"""Structs that are values of ports, by their code."""

_encode = msgspec.msgpack.Encoder().encode


def pack(value: Any) -> bytes:
    """Raises `TypeError`, `ValueError`, `OverflowError`, `RecursionError` for what is no value of a port."""
    return _encode(_tagged(value))


def unpack(packed: bytes) -> Any:
    """Raises `msgspec.MsgspecError` for what `pack` has not made."""
    return _decode(packed)


def _tagged(value: Any) -> Any:
    match value:
        case Document() | Message():
            return msgspec.msgpack.Ext(_KINDS.index(type(value)), _encode(value))
        case dict():
            return {name: _tagged(item) for name, item in value.items()}
        case list() | tuple():
            return [_tagged(item) for item in value]
    return value


def _untagged(code: int, data: memoryview) -> Any:
    if not 0 <= code < len(_KINDS):
        raise msgspec.ValidationError(f"no kind of value has the code {code}")
    return msgspec.msgpack.decode(data, type=_KINDS[code])


_decode = msgspec.msgpack.Decoder(ext_hook=_untagged).decode
