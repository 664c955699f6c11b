"""Whoever can be asked what was used."""

from __future__ import annotations

from typing import Protocol

import msgspec

from serve_apps.accounting.queries import UsagePage, UsageQuery


class UsageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page, and how far it goes."""

    page: UsagePage
    folded_until: float | None
    """Unix seconds: what ended before is in it. None: nothing was folded yet."""


class UsageUnavailable(Exception):
    """The database, or who keeps it, does not answer."""


class UsageBook(Protocol):
    async def ask(self, query: UsageQuery) -> UsageAnswer:
        """Raises `TooMuch`, `UsageUnavailable`."""
        ...
