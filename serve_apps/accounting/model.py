"""The record of one call, as it settles: who called what, and what each model did for it.

It goes into the store in the same step in which the call's reservation is closed, so it is there exactly
once, and its sums are those of the quotas.
"""

from __future__ import annotations

from typing import Literal

import msgspec

CallEnd = Literal["done", "cut", "refused", "failed", "expired"]
"""`cut`: the client left or its time was over; `refused`: the call was the caller's mistake; `expired`: its
gateway died, and it is charged what had been observed."""


class Share(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one model did for a call; of a run, for one node of it."""

    model: str
    node: str = ""
    """Its place in the graph, whatever item or pass; empty outside of graphs."""
    input_tokens: int = 0
    """Of the prompt, cached ones included."""
    cached_tokens: int = 0
    output_tokens: int = 0
    engine_ns: int = 0
    """Of the engine's time: a call that shares its engine with others is told its part, and all parts
    together are the time that the engine was busy."""
    nanodollars: int = 0
    priced_by: str = ""
    """Whose prices: `config`, or a price list by name and version. Empty: the model has none."""


class CallRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call."""

    call_id: str
    """The request's id."""
    at: float
    """When it ended; Unix seconds."""
    tenant: str
    team: str
    caller: str
    endpoint: str
    """Path of the route, names left out."""
    model: str
    """As it was asked for: a model or `graph/NAME`."""
    end: CallEnd
    seconds: float
    first_token_s: float | None = None
    """Until the first text came back."""
    tags: dict[str, str] = {}
    shares: list[Share] = []


encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(CallRecord).decode
