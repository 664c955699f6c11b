"""Files of prompts: `kind: Prompt`, one version of one prompt in each.

    apiVersion: clustergraph/v1
    kind: Prompt
    metadata: {name: answer, version: 1.2.0}
    description: Answers from passages
    labels: [stable]
    template: |
      {{ passages }}
      Question: {{ question }}

Mistakes are reported like those of pipelines: all at once, each with its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from graphs import yaml_tree
from graphs.errors import Path, PipelineError, Position, Problem
from graphs.known import NOTHING_KNOWN
from graphs.nodes.spec import Fault
from graphs.nodes.templated import template_faults
from graphs.pipeline import API_VERSION, name_fault
from graphs.prompts import Prompts, PromptVersion, Word
from graphs.reading.base import Reading
from graphs.templates import MAX_TEMPLATE_CHARS, outline
from graphs.yaml_tree import YamlTree

KIND = "Prompt"
MAX_FILES = 1_000
"""Of one folder."""

_ABOVE = ("apiVersion", "kind", "metadata")


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    version: Word


class _Body(msgspec.Struct, frozen=True):
    template: Annotated[str, Meta(min_length=1, max_length=MAX_TEMPLATE_CHARS)]
    labels: Annotated[tuple[Word, ...], Meta(max_length=16)] = ()
    description: str = ""


class _Loaded(NamedTuple):
    prompt: PromptVersion
    tree: YamlTree
    file: str


def is_prompt(text: str) -> bool:
    """Whether a text is meant as a prompt, and not as a pipeline."""
    data = yaml_tree.read(text).data
    return isinstance(data, dict) and data.get("kind") == KIND


def load_prompt(text: str, file: str = "<prompt>") -> PromptVersion:
    """Reads a prompt. `file` is its name in messages. Raises `PipelineError`."""
    return _load(text, file).prompt


def load_prompt_file(path: FilePath) -> PromptVersion:
    """Reads a prompt from a file. Raises `PipelineError`, and `OSError` when there is no such file."""
    return _load(_text_of(path), str(path)).prompt


def load_prompts(paths: Iterable[FilePath]) -> Prompts:
    """The prompts of files, and of the `*.yaml` files of folders.

    Raises `PipelineError` with every mistake of all files, and `OSError` for one that cannot be read.
    """
    loaded: list[_Loaded] = []
    problems: list[Problem] = []
    for path in _files(paths):
        try:
            loaded.append(_load(_text_of(path), str(path)))
        except PipelineError as error:
            problems += error.problems
    problems += _clashes(loaded)
    if problems:
        raise PipelineError(problems)
    return Prompts(each.prompt for each in loaded)


def _files(paths: Iterable[FilePath]) -> Iterator[FilePath]:
    for path in paths:
        if path.is_dir():
            found = sorted(path.glob("*.yaml"))
            if len(found) > MAX_FILES:
                message = f"more than {MAX_FILES} files"
                raise PipelineError([Problem("too-large", message, file=str(path))])
            yield from found
        else:
            yield path


def _text_of(path: FilePath) -> str:
    """Raises `PipelineError` for what is not UTF-8."""
    with path.open("rb") as file:
        content = file.read(yaml_tree.MAX_BYTES + 1)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = Problem("bad-yaml", "not UTF-8", position=Position(line, 1), file=str(path))
        raise PipelineError([problem]) from error


def _load(text: str, file: str) -> _Loaded:
    tree = yaml_tree.read(text)
    reading = Reading(NOTHING_KNOWN)
    reading.problems += tree.problems
    prompt: PromptVersion | None = None
    if tree.data is not None:
        prompt = _prompt(reading, tree.data)
    elif not reading.problems:
        reading.problem("empty", "there is no prompt in here", ())
    if prompt is None or reading.problems:
        problems = [_placed(problem, tree, file) for problem in reading.problems]
        raise PipelineError(sorted(problems, key=_order))
    return _Loaded(prompt, tree, file)


def _prompt(reading: Reading, data: Any) -> PromptVersion | None:
    """None when something is missing."""
    if not reading.is_mapping(data, ()):
        return None
    for field, value in (("apiVersion", API_VERSION), ("kind", KIND)):
        if data.get(field) != value:
            reading.problem("bad-value", f"{field} must be {value}", (field,))
    metadata = data.get("metadata")
    if "metadata" not in data:
        reading.problem("missing", "a prompt needs metadata with a name and a version", ("metadata",))
    named = reading.struct(metadata, _Metadata, ("metadata",)) if metadata is not None else None
    body = reading.struct(data, _Body, (), beside=_ABOVE)
    if named is not None and (fault := name_fault(named.name)):
        reading.problem("bad-name", fault, ("metadata", "name"))
    if body is not None:
        for found in template_faults(outline(body.template), "template"):
            reading.problems.append(_problem(found))
    if named is None or body is None:
        return None
    return PromptVersion(named.name, named.version, body.template, body.labels, body.description)


def _problem(fault: Fault) -> Problem:
    return Problem(
        fault.code,
        fault.message,
        (fault.field,),
        line_in_text=fault.line_in_text,
        token=fault.token,
        hint=fault.hint,
    )


def _clashes(loaded: Iterable[_Loaded]) -> Iterator[Problem]:
    """Two files that say they are one version, or that have one label, or a label that is a version."""
    taken: dict[tuple[str, str], str] = {}
    for prompt, tree, file in loaded:
        words: list[tuple[str, Path]] = [(prompt.version, ("metadata", "version"))]
        words += [(label, ("labels", index)) for index, label in enumerate(prompt.labels)]
        for word, path in words:
            first = taken.get((prompt.name, word))
            if first is None:
                taken[prompt.name, word] = file
            else:
                message = f"{word} is said of {prompt.name} twice"
                yield _placed(Problem("duplicate", message, path, hint=f"first in {first}"), tree, file)


def _placed(problem: Problem, tree: YamlTree, file: str) -> Problem:
    return replace(problem, position=problem.position or tree.locate(problem), file=file)


def _order(problem: Problem) -> tuple[int, int]:
    position = problem.position or Position(0, 0)
    return position.line, position.column
