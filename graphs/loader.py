"""YAML to `Pipeline`: reads what can be read, and reports everything that cannot, all at once.

    text ─► yaml_tree ─► plain data ─► Pipeline ─► validation ─► Loaded
                 └─ problems ─┴─ problems ─┴─ problems ─┘

A node that cannot be read is left out, and references to it are not complained of a second time.
"""

from __future__ import annotations

from pathlib import Path as FilePath

import msgspec

from graphs import validation, yaml_tree
from graphs.errors import PipelineError, Position, Problem
from graphs.pipeline import Pipeline
from graphs.reader import read_pipeline
from graphs.yaml_tree import YamlTree

MAX_PROBLEMS = 100
"""Problems that one refusal holds."""


class Loaded:
    """A pipeline that is right, and where its parts stand in its file."""

    def __init__(self, pipeline: Pipeline, tree: YamlTree, file: str, warnings: list[Problem]) -> None:
        self.pipeline = pipeline
        self.warnings = warnings
        self._tree = tree
        self._file = file

    def place(self, problem: Problem) -> Problem:
        """The problem with its position in the file: for what is found later, by a compilation."""
        return _placed(problem, self._tree, self._file)


def load_file(path: FilePath) -> Loaded:
    """Reads a pipeline from a file. Raises `PipelineError`, and `OSError` when there is no such file."""
    with path.open("rb") as file:
        content = file.read(yaml_tree.MAX_BYTES + 1)
    try:
        return load(content.decode(), str(path))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = Problem("bad-yaml", "not UTF-8", position=Position(line, 1), file=str(path))
        raise PipelineError([problem]) from error


def load(text: str, file: str = "<pipeline>") -> Loaded:
    """Reads a pipeline from YAML or JSON. `file` is its name in messages. Raises `PipelineError`."""
    tree = yaml_tree.read(text)
    problems = list(tree.problems)
    pipeline: Pipeline | None = None
    if tree.data is not None:
        draft = read_pipeline(tree.data)
        problems += draft.problems
        pipeline = draft.pipeline
        if pipeline is not None:
            problems += validation.check(pipeline, draft.unreadable, draft.loose)
    elif not problems:
        problems.append(Problem("empty", "there is no pipeline in here"))
    placed = [_placed(problem, tree, file) for problem in problems]
    placed.sort(key=_order)
    if pipeline is None or any(problem.severity == "error" for problem in placed):
        raise PipelineError(placed[:MAX_PROBLEMS])
    return Loaded(pipeline, tree, file, placed)


def _placed(problem: Problem, tree: YamlTree, file: str) -> Problem:
    position = problem.position or tree.locate(problem)
    return msgspec.structs.replace(problem, position=position, file=file)


def _order(problem: Problem) -> tuple[int, int]:
    position = problem.position or Position(0, 0)
    return position.line, position.column
