"""The reference page of the node kinds, made from the kinds themselves."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec.structs import fields as fields_of

from graphs.fields import bounds, example, field_schemas, sentence
from graphs.nodes.registry import KINDS, AnySpec
from graphs.ports import Port

_HEAD = """\
# Node kinds

Made by `clustergraph reference`; do not edit. How nodes are put together is in [graphs](../graphs.md).
"""
_EFFECTS = {
    "pure": "Pure: the same inputs give the same outputs, so it may be computed once for several nodes.",
    "idempotent": "Idempotent: it may be run again, but answers may differ.",
    "effectful": "Effectful: it is run exactly as often as the graph says.",
}


def node_reference() -> str:
    """Markdown, a section for each kind."""
    return "\n".join([_HEAD, *(_section(spec) for spec in KINDS.values())])


def _section(spec_type: type[AnySpec]) -> str:
    spec = example(spec_type)
    lines = [f"## {spec_type.kind()}", "", f"{spec_type.summary[:1].upper()}{spec_type.summary[1:]}.", ""]
    yaml, prose = explained(spec_type)
    lines += ["```yaml", yaml, "```", "", *(line for part in prose for line in (part, ""))]
    if spec_type.shorthand is not None:
        lines += [f"What is written after `{spec_type.kind()}:` is its input `{spec_type.shorthand}`.", ""]
    else:
        lines += _table(("setting", "type", "default", "meaning"), _settings(spec_type))
    lines += _inputs(spec_type, spec)
    outputs = ((f"`{name}`", str(port_type)) for name, port_type in spec.outputs({}).items())
    lines += _table(("output", "type"), outputs)
    if spec_type.holds_nodes:
        lines += ["It has nodes inside it, whose outputs and effects are its own too.", ""]
    if not spec_type.holds_nodes or spec.effects != "pure":
        lines += [_EFFECTS[spec.effects], ""]
    return "\n".join(lines)


def explained(spec_type: type[AnySpec]) -> tuple[str, list[str]]:
    """What the module of a kind says of it: its example, which follows the first line, and the rest."""
    module = inspect.getmodule(spec_type)
    assert module is not None
    _, yaml, *prose = (inspect.getdoc(module) or "").split("\n\n")
    return textwrap.dedent(yaml), [" ".join(part.split()) for part in prose]


def _settings(spec_type: type[AnySpec]) -> Iterator[tuple[str, ...]]:
    required = {field.encode_name for field in fields_of(spec_type) if field.required}
    for name, described in field_schemas(spec_type).items():
        default = "required" if name in required else _value(described.get("default"))
        yield f"`{name}`", sentence(described), default, described.get("description", "")


def _inputs(spec_type: type[AnySpec], spec: AnySpec) -> list[str]:
    depend = ["Its inputs depend on its settings.", ""] if spec_type.open_inputs else []
    rows = (
        (f"`{name}`", _type(port), _default(port), port.description) for name, port in spec.inputs().items()
    )
    return [*depend, *_table(("input", "type", "default", "meaning"), rows)]


def _type(port: Port) -> str:
    limits = bounds(port.constraints)
    return f"{port.type}, {limits}" if limits else str(port.type)


def _default(port: Port) -> str:
    return "required" if port.required else _value(port.default)


def _value(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    if not body:
        return []
    lines = [head, tuple("---" for _ in head), *body]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]
