"""YAML to `Pipeline`: reads what can be read, and reports everything that cannot, all at once.

    text ─► yaml_tree ─► plain data ─► Pipeline ─► validation ─► Loaded
                 └─ problems ─┴─ problems ─┴─ problems ─┘

A node that cannot be read is left out, and references to it are not complained of a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath

from msgspec.structs import replace

from graphs import validation, yaml_tree
from graphs.errors import Path, PipelineError, Position, Problem
from graphs.known import NOTHING_KNOWN, Known
from graphs.pipeline import Pipeline
from graphs.reading.pipeline import read_pipeline
from graphs.yaml_tree import YamlTree

MAX_PROBLEMS = 100
"""Problems that one refusal holds."""


class Source:
    """A file that was read, and where the parts of its pipeline stand."""

    def __init__(self, tree: YamlTree, file: str, moved: Mapping[Path, Path]) -> None:
        self._tree = tree
        self._file = file
        self._moved = moved
        """Where nodes stand that are the only ones of their bodies, by where they would stand in full."""

    def place(self, problem: Problem) -> Problem:
        """The problem with its position in the file."""
        path = problem.path
        for length in range(len(path), 0, -1):
            if path[:length] in self._moved:
                path = (*self._moved[path[:length]], *path[length:])
                break
        found = replace(problem, path=path)
        return replace(found, position=problem.position or self._tree.locate(found), file=self._file)


class Loaded:
    """A pipeline that is right, and where its parts stand in its file."""

    def __init__(self, pipeline: Pipeline, source: Source, warnings: list[Problem]) -> None:
        self.pipeline = pipeline
        self.warnings = warnings
        self._source = source

    def place(self, problem: Problem) -> Problem:
        """The problem with its position in the file: for what is found later, by a compilation."""
        return self._source.place(problem)


def load_file(path: FilePath, known: Known = NOTHING_KNOWN) -> Loaded:
    """Reads a pipeline from a file. Raises `PipelineError`, and `OSError` when there is no such file."""
    return load_tree(read_tree(path), str(path), known)


def read_tree(path: FilePath) -> YamlTree:
    """What a file says. Raises `PipelineError` where it is no text, and `OSError`."""
    with path.open("rb") as file:
        content = file.read(yaml_tree.MAX_BYTES + 1)
    try:
        return yaml_tree.read(content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = Problem("bad-yaml", "not UTF-8", position=Position(line, 1), file=str(path))
        raise PipelineError([problem]) from error


def load(text: str, file: str = "<pipeline>", known: Known = NOTHING_KNOWN) -> Loaded:
    """Reads a pipeline from YAML or JSON. `file` is its name in messages. Raises `PipelineError`."""
    return load_tree(yaml_tree.read(text), file, known)


def load_tree(tree: YamlTree, file: str, known: Known) -> Loaded:
    """The pipeline that a file says. Raises `PipelineError`."""
    problems = list(tree.problems)
    pipeline: Pipeline | None = None
    source = Source(tree, file, {})
    if tree.data is not None:
        pipeline, reading = read_pipeline(tree.data, known)
        source = Source(tree, file, reading.moved)
        problems += reading.problems
        if pipeline is not None:
            problems += validation.check(pipeline, reading.unreadable, reading.loose)
    elif not problems:
        problems.append(Problem("empty", "there is no pipeline in here"))
    placed = [source.place(problem) for problem in problems]
    placed.sort(key=_order)
    if pipeline is None or any(problem.severity == "error" for problem in placed):
        raise PipelineError(placed[:MAX_PROBLEMS])
    return Loaded(pipeline, source, placed)


def _order(problem: Problem) -> tuple[int, int]:
    position = problem.position or Position(0, 0)
    return position.line, position.column
