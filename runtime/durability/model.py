"""What is kept of a run so that another process can go on with it.

    RunRequest, plan hash          once, when it begins
    Checkpoint  ask                each node that is done: only what is new, never the whole state
    Checkpoint  search[3].each     also those inside others, by their paths
    Checkpoint  plan+0             also what a node has done so far, where it says so (`NodeCall.once`)
    Checkpoint  refine~2           that a node has begun its second try: inside it are then `refine~2.draft` …
    Checkpoint  +run               what is known of the run as a whole
    events 1, 2, 3 …               in order, numbered

Exactly one runner at a time holds the *lease* of a run. Each holder has a larger *fencing token* than all
before it, and whatever is written carries the token: a runner that was taken for dead writes nothing any more
(Gray and Cheriton, "Leases", SOSP 1989; Kleppmann, "Designing Data-Intensive Applications", chapter 8).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from cluster.messages import Usage

RunState = Literal["running", "suspended", "succeeded", "failed"]
"""`running` until it says something else, whether or not anybody drives it. One that was cancelled has
failed."""


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of work that is done."""

    path: str
    """Of the node; what a node has done so far has `+` and a key of its own behind that, and behind each node
    that was tried again stands `~` and the number of the try (`runtime.executor.progress`)."""
    outputs: Any
    """By port, of a node; anything, of a part of its work."""
    usage: Usage | None = None
    """Tokens of its own model calls."""
    seconds: float = 0.0
    """Wall time it took."""
    skipped: bool = False
    """The node was not run: its outputs are absent."""
    supersedes: tuple[str, ...] = ()
    """Other paths that nobody who goes on with the run looks at any more, now that this is kept: of nodes, of
    parts of their work, or of bodies (`refine[3]`) with all that is inside. A node that is done supersedes
    what is inside it without saying so."""


class Lease(NamedTuple):
    """The right to go on with a run."""

    tenant: str
    run_id: str
    token: int
    """Larger than that of every holder before."""


class Numbered(NamedTuple):
    """An event of a run, as followers see it."""

    number: int
    """From 1, over all attempts. Gaps are events that were left out for want of room (`bounds.thin`), or that
    a runner died over before anybody had seen them."""
    event: Any
    """A `runtime.events.RunEvent`."""


LEASE_S = 5.0
"""How long a lease holds unless it is renewed: so long the runs of a dead runner stand still, and so long a
living one may be away from the store before another takes its runs over."""
KEEP_S = 24 * 3600.0
"""How long a run is kept after its last word."""
MAX_RUNS = 1_000
"""Durable runs kept of one tenant."""
