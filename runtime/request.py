"""What is asked of a runner: one run of a graph."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.messages import Message
from graphs.pipeline import Durability


class RunRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run of a graph. Travels as msgpack (`encode_request`, `decode_request`)."""

    run_id: str
    graph: str
    """Its name, which means the newest version, or NAME@VERSION."""
    inputs: dict[str, Any]
    """By name. What is absent takes the default of the graph."""
    deadline: float
    """Unix seconds. Every call of the run inherits it."""
    tenant: str = ""
    priority: int = 0
    """Lower goes first; added to what the plan says of each step."""
    history: list[Message] = []
    """The conversation so far, oldest first, without the message that this run answers."""
    stream: bool = False
    """Whether deltas and node outputs are wanted as they happen. Events of nodes come either way."""
    durability: Durability = "none"
    """What is kept so that the run can go on elsewhere, be resumed and forked."""
    background: bool = False
    """Whether it goes on when nobody reads its events. They are kept for whoever follows it."""
    token_budget: int | None = None
    """Tokens, of prompts and outputs together, at which it is ended. None: only the plan bounds it."""
    plan: bytes | None = None
    """The plan to run, packed (`runtime.plan.encode_plan`), of a graph that is not deployed."""


encode_request = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(RunRequest).decode
