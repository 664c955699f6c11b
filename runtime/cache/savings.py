"""All that a runner saves with, in one place."""

from __future__ import annotations

import msgspec

from runtime.cache.claims import Claims
from runtime.cache.counts import Counts
from runtime.cache.flights import Flights
from runtime.cache.load import Load
from runtime.cache.results import Results
from runtime.cache.warmth import Warmth


class Savings(msgspec.Struct, frozen=True):
    """Of one process and one event loop."""

    results: Results = msgspec.field(default_factory=Results)
    flights: Flights = msgspec.field(default_factory=Flights)
    counts: Counts = msgspec.field(default_factory=Counts)
    load: Load = msgspec.field(default_factory=Load)
    warmth: Warmth = msgspec.field(default_factory=Warmth)
    claims: Claims | None = None
    """Of `results`, where other runners share them; None where this is the only runner."""
