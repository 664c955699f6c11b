"""YAML read into plain data, with the place of every key and value kept, and nothing that can explode.

    text ─► events ─► YamlTree: `data` (JSON's types only) and `locate(path)`

It is read from parser events and not through a constructor: an alias or an anchor is refused as it is met, so
a bomb costs no more than its own text, and depth is counted before anything is nested. Only the JSON subset
of values is known: `yes`, `012` and dates are strings, as people expect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from graphs.errors import Position, Problem, word_pattern

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 48
MAX_VALUES = 500_000
"""Scalars, lists and mappings of one file together."""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+([eE][-+]?[0-9]{1,3})?|[eE][-+]?[0-9]{1,3})")
_INT64 = 2**63
_WORDS: Mapping[str, bool | None] = {"null": None, "~": None, "": None, "true": True, "false": False}


class _Stop(Exception):
    """Reading cannot go on."""


class _Node:
    """A value, where it stands, and for a mapping where each key stands."""

    __slots__ = ("block", "data", "keys", "position", "values")

    def __init__(self, data: Any, position: Position, *, block: bool = False) -> None:
        self.data = data
        self.position = position
        self.block = block
        """Whether it is a text written on the lines below its `|` or `>`."""
        self.keys: dict[str, Position] = {}
        self.values: dict[str | int, _Node] = {}


class YamlTree:
    """What was read. `data` is None and `problems` says why where nothing could be."""

    def __init__(self, text: str, root: _Node | None, problems: list[Problem]) -> None:
        self._lines = text.split("\n")
        self._root = root
        self.problems = problems
        """With positions. Duplicate keys leave the rest readable."""

    @property
    def data(self) -> Any:
        return self._root.data if self._root is not None else None

    def line(self, number: int) -> str:
        """Line `number` of the text, from 1."""
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""

    def locate(self, problem: Problem) -> Position:
        """Where `problem.path` is; where that is not in the text, the nearest thing above it."""
        node, key = self._root, None
        for part in problem.path:
            below = node.values.get(part) if node is not None else None
            if below is None or node is None:
                return key or (node.position if node is not None else Position(1, 1))
            key = node.keys.get(str(part))
            node = below
        if node is None:
            return Position(1, 1)
        if problem.on_key and key is not None:
            return key
        if problem.line_in_text is not None or problem.token is not None:
            return self._inside(node, problem)
        return node.position

    def _inside(self, node: _Node, problem: Problem) -> Position:
        """The place of a word or line inside a text."""
        start = node.position.line + (problem.line_in_text or 1) - (0 if node.block else 1)
        for number in range(start, min(start + 1, len(self._lines)) + 1):
            line = self.line(number)
            begins = node.position.column - 1 if number == node.position.line else 0
            found = _find(problem, line, begins)
            if found:
                return Position(number, found.start() + 1, len(found[0]))
        if not node.block:
            return node.position
        text = self.line(start)
        return Position(start, len(text) - len(text.lstrip()) + 1, max(1, len(text.strip())))


def _find(problem: Problem, line: str, begins: int) -> re.Match[str] | None:
    """The place of the word at fault in a line."""
    if problem.token is None:
        return None
    places = list(re.compile(word_pattern(problem.token)).finditer(line, begins))
    return places[min(problem.nth, len(places) - 1)] if places else None


def read(text: str) -> YamlTree:
    """Reads one document. Never raises for what the text says: that is in `problems`."""
    reader = _Reader()
    if len(text) > MAX_BYTES:
        return YamlTree("", None, [_problem("too-large", f"larger than {MAX_BYTES} bytes", Position(1, 1))])
    try:
        for event in yaml.parse(text, Loader=yaml.CBaseLoader):
            reader.take(event)
    except _Stop:
        pass
    except yaml.MarkedYAMLError as error:
        reader.problems.append(_syntax_problem(error, text))
        reader.root = None
    except (yaml.YAMLError, UnicodeError) as error:
        reader.problems.append(_problem("bad-yaml", str(error).split("\n")[0], Position(1, 1)))
        reader.root = None
    return YamlTree(text, reader.root, reader.problems)


class _Reader:
    """Builds the tree event by event, on a stack of its own."""

    def __init__(self) -> None:
        self.root: _Node | None = None
        self.problems: list[Problem] = []
        self._stack: list[_Node] = []
        self._pending: list[tuple[str, Position] | None] = []
        """For each open mapping the key that waits for its value."""
        self._values = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        position = _position(event)
        match event:
            case yaml.AliasEvent():
                self._stop("alias", f"aliases are not allowed: *{event.anchor}", position)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._stop("many-documents", "a file holds one pipeline", position)
            case yaml.ScalarEvent():
                self._check(event, position)
                if self._awaits_key():
                    self._key(event, position)
                else:
                    self._place(_Node(_scalar(event), position, block=event.style in ("|", ">")))
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._check(event, position)
                self._open(event, position)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._stack.pop()
                self._pending.pop()
            case _:
                pass

    def _check(self, event: Any, position: Position) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            self._stop("too-large", f"more than {MAX_VALUES} values", position)
        if event.anchor is not None:
            self._stop("alias", f"anchors are not allowed: &{event.anchor}", position)
        if event.tag not in (None, "!") and not (isinstance(event.tag, str) and event.tag == "?"):
            self._stop("tag", f"tags are not allowed: {event.tag}", position)

    def _awaits_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].data, dict) and self._pending[-1] is None

    def _open(self, event: Any, position: Position) -> None:
        if len(self._stack) >= MAX_DEPTH:
            self._stop("too-deep", f"nested more than {MAX_DEPTH} deep", position)
        if self._awaits_key():
            self._stop("bad-yaml", "a key must be a text", position, _REFERENCE_HINT)
        node = _Node({} if isinstance(event, yaml.MappingStartEvent) else [], position)
        self._place(node)
        self._stack.append(node)
        self._pending.append(None)

    def _key(self, event: Any, position: Position) -> None:
        above = self._stack[-1]
        if event.value in above.keys:
            self.problems.append(
                _problem(
                    "duplicate",
                    f"{event.value} is written twice",
                    position,
                    f"first on line {above.keys[event.value].line}",
                )
            )
        else:
            above.keys[event.value] = position
        self._pending[-1] = (event.value, position)

    def _place(self, node: _Node) -> None:
        if not self._stack:
            self.root = node
            return
        above = self._stack[-1]
        if isinstance(above.data, list):
            above.values[len(above.data)] = node
            above.data.append(node.data)
            return
        pending, self._pending[-1] = self._pending[-1], None
        if pending is not None and pending[0] not in above.data:
            above.values[pending[0]] = node
            above.data[pending[0]] = node.data

    def _stop(self, code: str, message: str, position: Position, hint: str | None = None) -> None:
        self.problems.append(_problem(code, message, position, hint))
        self.root = None
        raise _Stop


def _scalar(event: Any) -> Any:
    """The JSON value of a scalar: quoted and block texts are strings, plain ones by YAML's JSON schema."""
    text: str = event.value
    return text if event.style not in (None, "") else plain(text)


def plain(text: str) -> str | int | float | bool | None:
    """What a text means that is written without quotes. Numbers that fit no 64 bits are texts."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and -_INT64 <= int(text) < _INT64:
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def _position(event: Any) -> Position:
    start, end = event.start_mark, event.end_mark
    length = end.column - start.column if end.line == start.line else 1
    return Position(start.line + 1, start.column + 1, max(1, length))


_REFERENCE_HINT = 'inside { } and [ ] a reference is quoted, as "${node.port}"'


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return _problem("bad-yaml", error.problem or "not YAML", Position(1, 1))
    lines = text.split("\n")
    near = lines[max(0, mark.line - 1) : mark.line + 1]
    hint = _REFERENCE_HINT if any(re.search(r"[{\[,].*[^\"']\$\{", line) for line in near) else None
    position = Position(mark.line + 1, mark.column + 1)
    if mark.line >= len(lines):
        position = Position(len(lines), len(lines[-1]) + 1)
    return _problem("bad-yaml", error.problem or "not YAML", position, hint)


def _problem(code: str, message: str, position: Position, hint: str | None = None) -> Problem:
    return Problem(code, message, position=position, hint=hint)
