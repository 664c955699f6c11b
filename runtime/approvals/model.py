"""An approval: what a run asks of a person, and what was decided. One schema from the store to the API."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

MAX_VALUE_BYTES = 256 * 1024
"""Packed size of what is shown to a person."""
MAX_COMMENT_CHARS = 4_000
MAX_APPROVALS = 1_000
"""Of one run at a time."""


class Asked(msgspec.Struct, frozen=True):
    """What a person is to look at."""

    node: str
    """Path of the node that waits."""
    message: str
    value: Any
    asked: float
    """Unix seconds."""
    until: float
    """Unix seconds. The node waits no longer."""
    graph: str = ""
    """Whose run asks: who may not call it may not decide."""


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person says. The first one holds."""

    approved: bool
    comment: str | None = None
    value: Any | UnsetType = UNSET
    """In place of what was shown. Absent: that goes on as it is."""
    decided: float = 0.0
    """Unix seconds."""
    by: str = ""
    """Id of the key that it came with."""


class Approval(msgspec.Struct, frozen=True):
    """Something asked, and what came of it so far."""

    asked: Asked
    decision: Decision | None = None


class Answer(msgspec.Struct, frozen=True):
    """What the node that waited gives."""

    approved: bool
    comment: str | None
    value: Any


def no() -> bool:
    """Questions do not stay when nobody waits for them any more."""
    return False


def answer_of(asked: Asked, decision: Decision) -> Answer:
    value = asked.value if decision.value is UNSET else decision.value
    return Answer(decision.approved, decision.comment, value)


def fits(asked: Asked, decision: Decision) -> bool:
    """Whether what is given in place of a value is of its kind, so that the nodes behind can take it."""
    if decision.value is UNSET or asked.value is None:
        return True
    return _kind(decision.value) == _kind(asked.value)


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case _:
            return type(value).__name__
