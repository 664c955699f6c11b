"""What a pipeline may use that stands in other files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphs.pipeline import Pipeline
from graphs.prompts import Prompts
from graphs.versions import found_in


@dataclass(frozen=True)
class Known:
    """What was loaded before."""

    graphs: Mapping[str, Pipeline] = field(default_factory=dict)
    """The pipelines that others may run as a `subgraph`, by name; where a name has several versions that is
    the newest, and each is there by NAME@VERSION too."""
    prompts: Prompts = field(default_factory=Prompts)
    """The prompt files that nodes may use."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By name of a pipeline that is there, or NAME@VERSION: why it cannot be used."""
    modules: tuple[str, ...] | None = None
    """Whose functions may be named, with all modules inside them; None for any that can be imported."""

    def graph(self, reference: str) -> Pipeline | None:
        """What NAME or NAME@VERSION means; None where there is no such."""
        return found_in(self.graphs, reference, lambda pipeline: pipeline.metadata.version)


NOTHING_KNOWN = Known()
