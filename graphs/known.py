"""What a pipeline may use that stands in other files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphs.pipeline import Pipeline
from graphs.prompts import Prompts


@dataclass(frozen=True)
class Known:
    """What was loaded before."""

    graphs: Mapping[str, Pipeline] = field(default_factory=dict)
    """By name: the pipelines that others may run as a `subgraph`."""
    prompts: Prompts = field(default_factory=Prompts)
    """The prompt files that nodes may use."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By name of a pipeline that is there: why it cannot be used."""
    modules: tuple[str, ...] | None = None
    """Whose functions may be named, with all modules inside them; None for any that can be imported."""


NOTHING_KNOWN = Known()
