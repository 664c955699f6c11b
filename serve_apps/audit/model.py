"""What the audit log holds: no secret, no prompt, and of values only what tells whether they changed."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

import msgspec

from runtime.store.errors import StoreError

PLATFORM: Final = "-"
"""The log of what belongs to no organisation. No organisation can be called so."""
OPERATOR: Final = "operator"
"""Who works on the machine itself, with its secrets, and not over the API."""

Outcome = Literal["allowed", "refused", "failed"]
"""`allowed`: the actor may, and the change follows. `refused`: it may not, and nothing happens. `failed`: the
change that entry `of` tells of was not made, or nobody knows whether it was."""

_ANCHOR = re.compile(
    r"(?P<tenant>-|[A-Za-z0-9][A-Za-z0-9._-]{0,127}):(?P<sequence>\d{1,15}):(?P<mac>[0-9a-f]{64})"
)


class AuditError(StoreError):
    """Base of what the log refuses."""


class AuditBroken(AuditError):
    """The log is not as we left it: nothing may be added, nor changed that it would have to tell of."""


class WrongAnchor(AuditError):
    """A text that is no anchor."""


class Deed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that somebody wants to do."""

    tenant: str
    """The organisation that it is done to, or `PLATFORM`: whose log it goes into."""
    actor: str
    """Id of the key, or `user-…` of a person."""
    actor_tenant: str
    """The organisation of the actor."""
    actor_role: str
    action: str
    """As `key.create`."""
    object: str
    """As `key/9f86…`."""
    request_id: str
    before: str | None = None
    """Digest of what the object was; None where there was none."""
    after: str | None = None
    """Digest of what it becomes; None where it is no more."""
    changed: list[str] = []
    """Names of the fields that become others."""


class Entry(Deed, frozen=True, omit_defaults=True, kw_only=True):
    """A deed as the log tells of it."""

    sequence: int
    """From 1 on, without a gap."""
    at: float
    """Unix seconds, of the clock of the gateway that wrote it."""
    outcome: Outcome = "allowed"
    of: int | None = None
    """The entry that this one says more of."""


class Kept(NamedTuple):
    """An entry as the store keeps it."""

    place: bytes
    """`SEQUENCE-0`."""
    packed: bytes
    mac: bytes


class Head(NamedTuple):
    """What the store says of the end of a log, beside the log."""

    sequence: int
    mac: bytes
    seal: bytes


class Anchor(msgspec.Struct, frozen=True):
    """How far a log had come at some time: to be kept where nobody reaches who reaches the store."""

    tenant: str
    sequence: int
    mac: str
    """Hexadecimal."""

    def __str__(self) -> str:
        return f"{self.tenant}:{self.sequence}:{self.mac}"


class Verdict(msgspec.Struct, frozen=True):
    """What a look at a whole log came to."""

    entries: int
    """That are as they were written, from the first on."""
    anchor: Anchor | None
    """Of the last of them; None of an empty log."""
    first_bad: int | None = None
    """Number of the first entry that is not as it was written, or is not there; None where there is none."""
    reason: str = ""

    @property
    def sound(self) -> bool:
        return self.first_bad is None


def parse_anchor(text: str) -> Anchor:
    """Raises `WrongAnchor`."""
    match = _ANCHOR.fullmatch(text.strip())
    if match is None:
        raise WrongAnchor("an anchor is ORGANISATION:NUMBER:64 hexadecimal digits, as `audit head` prints it")
    return Anchor(match["tenant"], int(match["sequence"]), match["mac"])
