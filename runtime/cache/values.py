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
    return _encode(tagged(value))


def unpack(packed: bytes) -> Any:
    """Raises `msgspec.MsgspecError` for what `pack` has not made."""
    return _decode(packed)


def tagged(value: Any, first: int = 0) -> Any:
    """The value, ready to be packed: what is more than plain data carries a code, from `first` on."""
    match value:
        case Document() | Message():
            return msgspec.msgpack.Ext(first + _KINDS.index(type(value)), _encode(value))
        case dict():
            return {name: tagged(item, first) for name, item in value.items()}
        case list() | tuple():
            return [tagged(item, first) for item in value]
    return value


def untagged(code: int, data: memoryview, first: int = 0) -> Any:
    """What carried the code. Raises `msgspec.ValidationError` for a code that nothing has."""
    if not first <= code < first + len(_KINDS):
        raise msgspec.ValidationError(f"no kind of value has the code {code}")
    fields = msgspec.msgpack.decode(data)
    try:
        return _KINDS[code - first](**fields)  # as it was made: what functions give is not checked
    except TypeError as error:
        raise msgspec.ValidationError(f"no such value has the code {code}") from error


_decode = msgspec.msgpack.Decoder(ext_hook=untagged).decode
