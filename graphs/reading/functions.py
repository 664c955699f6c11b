"""Plain data to `function` nodes: the function is imported, and its hints become the node's ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphs.errors import Path, Problem
from graphs.functions import FunctionRefused, spec_of
from graphs.nodes.function import Function
from graphs.reading.base import Place, Reading
from graphs.reading.bodies import NodeReader, Parts
from graphs.sugar import Names


def read_function(reader: NodeReader, data: Mapping[str, Any], at: Place, _seen: Names) -> Parts:
    """The kind's settings may be the name of the function alone."""
    reading, settings = reader.reading, data["function"]
    inputs = reading.bound(data.get("with", {}), (*at.path, "with"))
    path = at.down("function").path
    if isinstance(settings, str):
        return Parts(_found(reading, settings, path), inputs)
    written = reading.struct(settings, Function, path, hidden=Function.set_when_read)
    return Parts(None if written is None else _found(reading, written.call, (*path, "call")), inputs)


def _found(reading: Reading, name: str, path: Path) -> Function | None:
    try:
        return spec_of(name, reading.known.modules)
    except FunctionRefused as refused:
        problem = Problem("bad-function", refused.message, path, token=refused.token, hint=refused.hint)
        reading.problems.append(problem)
        return None
