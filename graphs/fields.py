"""What the fields of a struct say of themselves: as JSON Schema, and in words."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import msgspec
from msgspec import json
from msgspec.structs import fields as fields_of

from graphs.nodes.registry import AnySpec
from graphs.nodes.spec import NodeSpec

Schema = dict[str, Any]


def example(spec_type: type[AnySpec]) -> AnySpec:
    """The least spec of a kind: for what is the same in all of them."""
    required = {field.name: "x" for field in fields_of(spec_type) if field.required}
    return msgspec.convert({"kind": spec_type.kind(), **required, **spec_type.example}, spec_type)


def field_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The text below each field of a struct, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = ast.get_docstring(ast.Module([below], []))
            if text is not None:
                docs[field.target.id] = " ".join(text.split())
    return docs


def field_schemas(struct: type[msgspec.Struct]) -> dict[str, Schema]:
    """JSON Schema of each field of a struct that an author writes, with its text."""
    _, components = json.schema_components([struct])
    docs = field_docs(struct)
    properties: dict[str, Schema] = json.decode(json.encode(components[struct.__name__]["properties"]))
    hidden = struct.set_when_read if issubclass(struct, NodeSpec) else ()
    names = {field.encode_name: field.name for field in fields_of(struct) if field.name not in hidden}
    return {
        name: described | ({"description": docs[names[name]]} if names[name] in docs else {})
        for name, described in properties.items()
        if name in names
    }


def struct_schema(struct: type[msgspec.Struct]) -> Schema:
    """JSON Schema of a struct, each field with its text."""
    return {
        "type": "object",
        "description": (inspect.getdoc(struct) or "").split("\n")[0],
        "properties": field_schemas(struct),
        "required": [field.encode_name for field in fields_of(struct) if field.required],
        "additionalProperties": False,
    }


def sentence(described: Schema) -> str:
    """A field's schema in words, as `integer, 1 to 8`."""
    if "anyOf" in described:
        return " or ".join(sentence(each) for each in described["anyOf"] if each != {"type": "null"})
    if "enum" in described:
        return ", ".join(str(value) for value in described["enum"])
    if described.get("type") == "array":
        most = f", at most {described['maxItems']}" if "maxItems" in described else ""
        return f"list of {sentence(described.get('items', {}))}{most}"
    if isinstance(described.get("additionalProperties"), dict):
        return f"mapping to {sentence(described['additionalProperties'])}"
    limits = bounds(described)
    name = str(described.get("$ref", described.get("type", "any"))).rsplit("/", 1)[-1]
    return f"{name}, {limits}" if limits else name


def bounds(described: Schema) -> str:
    """The limits of a schema in words."""
    low, high = described.get("minimum"), described.get("maximum")
    over = described.get("exclusiveMinimum")
    if over is not None:
        return f"more than {over}" + (f", at most {high}" if high is not None else "")
    if low is not None:
        return f"{low} to {high}" if high is not None else f"at least {low}"
    longest = described.get("maxLength")
    return f"at most {longest} characters" if longest is not None else ""
