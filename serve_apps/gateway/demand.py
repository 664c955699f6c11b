"""What a call may come to, which is reserved before it, and what it came to, which is settled after it."""

from __future__ import annotations

import math

import msgspec

PICODOLLARS = 1000
"""In a nanodollar."""


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a model: picodollars (10^-12 US dollars) for each token and each second of its engine."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    second: int = 0
    by: str = ""
    """Who says so: `config`, or the price list by name and version."""


FREE = Price()


class Demand(msgspec.Struct, frozen=True, omit_defaults=True):
    """Most that a call may come to."""

    model: str
    """A model, or `graph/NAME`: whose own limits count beside those of everything."""
    input_tokens: int
    output_tokens: int
    """Of all choices together."""
    least_output_tokens: int | None = None
    """What the output may be cut to where less is left. None: it may not be cut, the client named it."""
    price: Price = Price()
    seconds: float = 0.0
    """Longest the call may take, which bounds what the seconds of the engine may cost."""
    choices: int = 1
    """Outputs that the call asks for, of the same length at most."""

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def fixed_nanodollars(self) -> int:
        """Most that all but the output may cost, rounded up."""
        dearest = max(self.price.input, self.price.cached_input)
        picodollars = self.input_tokens * dearest + math.ceil(self.seconds * self.price.second)
        return _in_nanodollars(picodollars)

    @property
    def output_nanodollars(self) -> int:
        """What the output may cost, rounded up."""
        return _in_nanodollars(self.output_tokens * self.price.output)


class Spent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call has come to, so far or in all."""

    tokens: int
    nanodollars: int = 0


def _in_nanodollars(picodollars: int) -> int:
    return -(-picodollars // PICODOLLARS)
