"""What may be spent, by whomever it is said of."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

NANODOLLARS = 10**9
"""In a US dollar. Money is counted in whole nanodollars: a token of a small model costs a few dozen."""

MAX_LIMIT = 10**15 - 1
"""Of any limit: a million dollars a month, far from where a script's numbers lose integers (2^53), and as
many digits as a number in a structured header may have."""


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Most that may be spent. None is no limit. Raises `ValueError` for one below 0 or above `MAX_LIMIT`."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and outputs together."""
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    """From midnight to midnight, UTC."""
    money_per_month: int | None = None
    """Nanodollars, from the first to the last day of a month, UTC."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            most = getattr(self, name)
            if most is not None and not 0 <= most <= MAX_LIMIT:
                raise ValueError(f"{name} is between 0 and {MAX_LIMIT}, not {most}")


class Allowance(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of one organisation, team or caller."""

    limits: Limits = Limits()
    """Of everything together."""
    models: Mapping[str, Limits] = {}
    """Of single models and graphs ("graph/<name>"), beside those of everything."""


UNLIMITED = Allowance()
