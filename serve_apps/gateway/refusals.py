"""Limits as a decision left them, and the refusal of a call that one of them does not hold.

QuotaExceeded
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serve_apps.gateway.applied import LimitKind
from serve_apps.gateway.callers import LevelKind
from serve_apps.gateway.limits import NANODOLLARS

_UNITS: dict[LimitKind, str] = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "concurrent_requests": "requests at the same time",
    "tokens_per_day": "tokens a day",
    "money_per_month": "a month",
}
_HOLDERS: dict[LevelKind, str] = {
    "key": "this API key",
    "team": "the team of this API key",
    "organisation": "the organisation of this API key",
}


class LimitState(msgspec.Struct, frozen=True):
    """A limit as the last decision left it."""

    level: LevelKind
    level_id: str
    model: str | None
    """None for a limit of everything together."""
    kind: LimitKind
    limit: int
    """Requests, tokens or nanodollars."""
    remaining: int
    reset_s: float | None
    """Seconds until all of it is free again, if nothing more is taken. None where nobody knows: calls that
    run end when they end."""

    def told(self) -> str:
        """As in "500 tokens a minute for the model m"."""
        whom = "" if self.model is None else f" for {self.model!r}"
        return f"{amount_told(self.kind, self.limit)} {_UNITS[self.kind]}{whom}"

    def holder(self) -> str:
        return _HOLDERS[self.level]

    @property
    def share_left(self) -> float:
        """Of 1, the part that is not taken."""
        return self.remaining / self.limit if self.limit else 0.0


class QuotaExceeded(Exception):
    """A limit does not admit the call. Nothing was taken from any limit."""

    def __init__(
        self,
        exceeded: LimitState,
        requested: int,
        retry_after_s: float | None,
        fits: str | None = None,
        limits: tuple[LimitState, ...] = (),
    ) -> None:
        super().__init__(exceeded, requested, retry_after_s, fits, limits)
        self.exceeded = exceeded
        """The limit that refuses for longest."""
        self.requested = requested
        """In the unit of that limit."""
        self.retry_after_s = retry_after_s
        """Seconds until the call would be admitted, should nothing be given back before; None if it asks for
        more than the limit."""
        self.fits = fits
        """What the client may ask for instead, as "max_tokens up to 12"; None where nothing would fit."""
        self.limits = limits
        """All limits of the call, for the response headers."""

    def __str__(self) -> str:
        limit, kind = self.exceeded, self.exceeded.kind
        needed = amount_told(kind, self.requested)
        hint = "" if self.fits is None else f": {self.fits} would fit"
        if self.retry_after_s is None:
            return (
                f"The request may need {needed}, and {limit.holder()} has {limit.told()}: it can never be "
                f"admitted{hint}."
            )
        left = amount_told(kind, limit.remaining)
        return (
            f"Rate limit reached: {limit.holder()} has {limit.told()}, of which {left} are left and {needed} "
            f"are needed{hint}. Try again in {self.retry_after_s:.1f} s."
        )


def amount_told(kind: LimitKind, amount: int) -> str:
    """As people say it: money in dollars."""
    if kind != "money_per_month":
        return str(amount)
    return f"${amount / NANODOLLARS:.9f}".rstrip("0").rstrip(".")


def nearest(limits: Sequence[LimitState]) -> LimitState | None:
    """The limit of which the smallest part is left; of several the first."""
    return min(limits, key=lambda state: state.share_left, default=None)
