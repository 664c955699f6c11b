"""What a deployment would change of what runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from cluster.live import Deployed

Kind = Literal["added", "removed", "restarted", "scaled", "unchanged"]


class Change(msgspec.Struct, frozen=True):
    """What becomes of one deployment."""

    deployment: str
    kind: Kind
    why: str = ""


def changes(runs: Sequence[Deployed], wanted: Sequence[Deployed]) -> tuple[Change, ...]:
    """One for each deployment of either, by name. A restart is one replica after the other, each ending what
    it has begun."""
    old, new = {each.name: each for each in runs}, {each.name: each for each in wanted}
    return tuple(_change(name, old.get(name), new.get(name)) for name in sorted({*old, *new}))


def _change(name: str, old: Deployed | None, new: Deployed | None) -> Change:
    if new is None:
        return Change(name, "removed")
    if old is None:
        return Change(name, "added", _replicas(new.replicas))
    why = "; ".join(_reasons(old, new))
    if why:
        return Change(name, "restarted", why)
    if old.replicas != new.replicas:
        return Change(name, "scaled", f"{old.replicas} to {_replicas(new.replicas)}")
    return Change(name, "unchanged", _replicas(new.replicas))


def _reasons(old: Deployed, new: Deployed) -> Iterator[str]:
    if new.version is None:
        yield "every deployment replaces it"
        return
    if old.version != new.version:
        yield "its config is another"
    if old.options != new.options:
        yield "it books other resources or nodes"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"
