"""Checkpoints and events as bytes, large outputs apart from them.

    Checkpoint(path="ask", outputs={"text": <100 KB>, "n": 3})
        ──► {"path": "ask", "outputs": {"text": Ext(1, digest), "n": 3}}   and   digest: <100 KB>

A value that is handed along and comes out of ten nodes is so kept once. Documents and turns of a conversation
come back as what they were: a template that prints one prints the same again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from runtime.cache.values import tagged, untagged
from runtime.durability.bounds import MAX_VALUE_BYTES, Entry
from runtime.durability.model import Checkpoint
from runtime.errors import NodeError, TooMuchToKeep

LARGE_BYTES = 64 * 1024
"""Packed size from which an output is kept apart."""
DIGEST_BYTES = 16

Digest = Callable[[bytes], bytes]
"""Of a value: `DIGEST_BYTES`, equal for equal ones."""

_REFERENCE = 1
_FIRST_KIND = 16
"""From this code on: values that are more than plain data."""
_encode = msgspec.msgpack.Encoder().encode


def digest_of(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST_BYTES).digest()


def pack(checkpoint: Checkpoint, digest: Digest = digest_of) -> Entry:
    """Raises `TooMuchToKeep` for an output that is too large, `NodeError` for one that cannot be packed."""
    try:
        marked = msgspec.structs.replace(checkpoint, outputs=tagged(checkpoint.outputs, _FIRST_KIND))
        packed = _encode(marked)
        if len(packed) <= LARGE_BYTES:
            return Entry(checkpoint, packed, {})
        values: dict[str, bytes] = {}
        outputs = _apart(marked, values, digest)
        return Entry(checkpoint, _encode(msgspec.structs.replace(checkpoint, outputs=outputs)), values)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NodeError(f"what {checkpoint.path} gave cannot be kept: {error}") from error


def unpack(packed: bytes, values: Mapping[str, bytes]) -> Checkpoint | None:
    """With its large values taken from `values`, by digest. None where one is not there."""
    whole = True

    def found(code: int, data: memoryview) -> Any:
        nonlocal whole
        if code != _REFERENCE:
            return untagged(code, data, _FIRST_KIND)
        value = values.get(data.hex())
        whole = whole and value is not None
        return None if value is None else _decode_any(value)

    checkpoint = msgspec.msgpack.Decoder(Checkpoint, ext_hook=found).decode(packed)
    return checkpoint if whole else None


def _kind(code: int, data: memoryview) -> Any:
    return untagged(code, data, _FIRST_KIND)


_decode_any = msgspec.msgpack.Decoder(ext_hook=_kind).decode


def references(packed: bytes) -> list[str]:
    """The digests of the large values of a packed checkpoint."""
    digests: list[str] = []

    def found(code: int, data: memoryview) -> None:
        if code == _REFERENCE:
            digests.append(data.hex())

    msgspec.msgpack.Decoder(Checkpoint, ext_hook=found).decode(packed)
    return digests


def _apart(checkpoint: Checkpoint, values: dict[str, bytes], digest: Digest) -> Any:
    """The outputs with a reference in place of each large one, which is added to `values`."""

    def shrunk(value: Any, name: str) -> Any:
        packed = _encode(value)
        if len(packed) > MAX_VALUE_BYTES:
            raise TooMuchToKeep(
                f"{checkpoint.path} gave {len(packed) / 2**20:.1f} MiB{name}, and one output of a durable "
                f"run has at most {MAX_VALUE_BYTES // 2**20}: hand it on by reference, or run it with "
                "durability none"
            )
        if len(packed) <= LARGE_BYTES:
            return value
        key = digest(packed)
        values[key.hex()] = packed
        return msgspec.msgpack.Ext(_REFERENCE, key)

    outputs = checkpoint.outputs
    if isinstance(outputs, dict):
        return {name: shrunk(value, f" as {name}") for name, value in outputs.items()}
    return shrunk(outputs, "")
