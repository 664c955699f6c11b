"""Anthropic's streamed events as ours.

message_start                    (usage of the prompt)
content_block_start  text        content_block_delta "Hel"     ─► [Delta "Hel"]
content_block_start  tool_use    content_block_delta '{"a":'   ─► [Delta call], [Delta arguments]
message_delta                    (stop reason, usage)          ─► [Finish]
message_stop                                                   ─► complete
"""

from __future__ import annotations

import msgspec

from cluster.anthropic_wire import Block, Counts, StatedError, called, error_of, finish_of, usage_of
from cluster.errors import EngineFailed
from cluster.interface import Batch
from cluster.messages import Delta, Usage


class _Piece(msgspec.Struct):
    """`delta`, of a block or of the whole message."""

    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Message(msgspec.Struct):
    usage: Counts | None = None


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: Block | None = None
    delta: _Piece | None = None
    usage: Counts | None = None
    error: StatedError | None = None


_decode = msgspec.json.Decoder(_Event).decode


class MessageReader:
    """Reads the events of one streamed message."""

    def __init__(self) -> None:
        self.complete = False
        """Whether its last event has come."""
        self._counts: Counts | None = None
        self._calls: dict[int, int] = {}
        """Numbers of tool calls by those of their blocks."""
        self._said: set[int] = set()
        """Blocks of tool calls whose arguments have begun."""

    @property
    def usage(self) -> Usage | None:
        """What the provider has counted so far. Output is counted at the end."""
        return usage_of(self._counts) if self._counts is not None else None

    def read(self, payload: str) -> Batch:
        """The events of one payload; of most kinds there are none.

        Raises `ClusterError` when it is an error, `EngineFailed` when it is not understood.
        """
        try:
            event = _decode(payload)
        except msgspec.DecodeError as error:
            raise EngineFailed(f"an event that is not Anthropic's: {error}") from error
        match event.type:
            case "error":
                raise error_of(event.error or StatedError())
            case "message_start" if event.message is not None:
                self._count(event.message.usage)
            case "content_block_start" if event.content_block is not None:
                return self._begin(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                return self._more(event.index, event.delta)
            case "content_block_stop":
                return self._end(event.index)
            case "message_delta":
                self._count(event.usage)
                if event.delta is not None and event.delta.stop_reason is not None:
                    return [finish_of(event.delta.stop_reason, event.delta.stop_sequence)]
            case "message_stop":
                self.complete = True
        return []

    def _begin(self, index: int, block: Block) -> Batch:
        if block.type == "text" and block.text:
            return [Delta(block.text)]
        if block.type != "tool_use":
            return []
        number = self._calls[index] = len(self._calls)
        arguments = ""
        if block.input:  # some servers tell it whole
            self._said.add(index)
            arguments = msgspec.json.encode(block.input).decode()
        return [Delta(tool_calls=[{"index": number, **called(block, arguments)}])]

    def _more(self, index: int, piece: _Piece) -> Batch:
        if piece.type == "text_delta" and piece.text:
            return [Delta(piece.text)]
        if piece.type != "input_json_delta" or not piece.partial_json:
            return []
        if index not in self._calls:
            raise EngineFailed("the provider sent arguments of no tool call")
        self._said.add(index)
        return [self._arguments(index, piece.partial_json)]

    def _end(self, index: int) -> Batch:
        """A call without arguments is told as one with none: nothing at all is no JSON."""
        if index in self._calls and index not in self._said:
            return [self._arguments(index, "{}")]
        return []

    def _arguments(self, index: int, text: str) -> Delta:
        return Delta(tool_calls=[{"index": self._calls[index], "function": {"arguments": text}}])

    def _count(self, counts: Counts | None) -> None:
        """Later counts are whole ones, of what they name."""
        if counts is None:
            return
        known = self._counts or Counts()
        told = {name: value for name, value in msgspec.to_builtins(counts).items() if value is not None}
        self._counts = msgspec.structs.replace(known, **told)
