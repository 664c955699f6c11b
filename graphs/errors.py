"""What can be wrong with a pipeline, all of it known before anything runs.

    GraphError
    └── PipelineError   holds every `Problem` that one load or one compilation found, never only the first

A `Problem` is data: a stable code, a sentence, where it is, and what was probably meant. All of it
survives pickling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Literal

import msgspec

Path = tuple[str | int, ...]
"""Keys and indexes that lead from the top of a pipeline's YAML to a value."""


class Position(msgspec.Struct, frozen=True):
    """A span on one line of a file. Line and column count from 1."""

    line: int
    column: int
    length: int = 1


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong."""

    code: str
    """Stable name of the kind of mistake, as `unknown-node`."""
    message: str
    path: Path = ()
    on_key: bool = False
    """Whether the key at the end of `path` is at fault, and not its value."""
    line_in_text: int | None = None
    """For a mistake inside a text of several lines, such as a template: its line there, from 1."""
    token: str | None = None
    """The word at fault, where it is only a part of the value."""
    nth: int = 0
    """Which of the places where `token` stands on its line, from 0."""
    hint: str | None = None
    severity: Literal["error", "warning"] = "error"
    position: Position | None = None
    """Absent for a pipeline that was not read from a file."""
    file: str | None = None

    def __str__(self) -> str:
        place = ""
        if self.position is not None:
            place = f"{self.file or '<pipeline>'}:{self.position.line}:{self.position.column}: "
        elif self.path:
            place = ".".join(str(part) for part in self.path) + ": "
        return f"{place}{self.severity}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class GraphError(Exception):
    """Base of everything this package raises on purpose."""


class PipelineError(GraphError):
    """A pipeline that cannot be used. `problems` holds every mistake, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)

    def __reduce__(self) -> tuple[object, ...]:
        return PipelineError, (self.problems,)


def word_pattern(word: str) -> str:
    """A regular expression that finds `word` as a word of its own, or signs wherever they stand."""
    escaped = re.escape(word)
    return rf"(?<!\w){escaped}(?!\w)" if word[0].isalnum() or word[0] == "_" else escaped


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint naming what was probably meant, or None where nothing is near."""
    names = sorted(known)
    near = get_close_matches(name[:64], names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    if 0 < len(names) <= 8:
        return "known: " + ", ".join(names)
    return None
