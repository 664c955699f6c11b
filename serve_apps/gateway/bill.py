"""What a call costs, and what is told of it when it ends: the seam between quotas and accounts."""

from __future__ import annotations

from typing import Protocol

from serve_apps.accounting.model import CallEnd
from serve_apps.gateway.demand import Spent


class Bill(Protocol):
    """Of one call."""

    def spent(self, tokens: int) -> Spent:
        """What the call has come to, so far or in all, of which so many tokens are charged."""
        ...

    def record(self, end: CallEnd, spent: Spent) -> bytes:
        """The encoded `CallRecord`, had the call ended now and so; empty where nothing is told. Asked for
        before the call, every few seconds while it runs, and when it has ended."""
        ...


class _Unbilled:
    """Counts tokens and tells nothing."""

    def spent(self, tokens: int) -> Spent:
        return Spent(tokens)

    def record(self, end: CallEnd, spent: Spent) -> bytes:  # noqa: ARG002 - the protocol's names
        return b""


UNBILLED: Bill = _Unbilled()
