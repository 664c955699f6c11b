"""The language as a JSON Schema (draft 2020-12), for editors that complete and check YAML as it is written.

Made from the node kinds themselves, so that it cannot lag behind them. A schema knows neither names nor the
types of references: what it lets through is still checked by the loader, what it refuses the loader refuses.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import json
from msgspec.structs import fields as fields_of

from graphs.bindings import RESERVED
from graphs.conditions import MAX_CONDITION_CHARS
from graphs.nodes.registry import KINDS, AnySpec
from graphs.pipeline import (
    API_VERSION,
    CONTEXT_FIELDS,
    MAX_NAME_CHARS,
    MAX_NODES,
    Chat,
    Context,
    Metadata,
    Policies,
)
from graphs.ports import CONSTRAINTS, NAMES, Port, schema

Schema = dict[str, Any]

REFERENCE = r"^\s*\$\{\s*[A-Za-z_][A-Za-z0-9_-]*\.[A-Za-z_][A-Za-z0-9_]*\s*\}\s*$"
_NOT_A_REFERENCE = {"type": "string", "not": {"pattern": r"(^|[^$])\$\{"}}
_TYPE = (
    rf"^([\s|{{}}\[\],?:]|({'|'.join(sorted({*NAMES, 'list', 'optional', 'stream'}))})(?![A-Za-z0-9_-])"
    r"|[A-Za-z_][A-Za-z0-9_-]*(?=\s*\??\s*:))+$"
)
"""The words and signs of types and names of fields. Whether they nest as types do is the loader's to say."""
_DURATION: Schema = {
    "anyOf": [
        {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)\s*$"},
        {"type": "number", "exclusiveMinimum": 0},
    ]
}
_PORT_FIELDS = ("type", "default", "description")
_SCALARS = ("string", "integer", "number", "boolean")


def language_schema() -> Schema:
    """The schema of a pipeline's file."""
    sections: Schema = {
        "apiVersion": {"const": API_VERSION},
        "kind": {"const": "Pipeline"},
        "metadata": _metadata(),
        "inputs": _named({"$ref": "#/$defs/input"}, "What a run is given."),
        "context": _context(),
        "nodes": _named({"$ref": "#/$defs/node"}, "The steps, in any order.") | {"maxProperties": MAX_NODES},
        "outputs": _named({"$ref": "#/$defs/output"}, "What a run gives back."),
        "chat": _struct(Chat),
        "policies": _policies(),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipeline",
        "description": "A graph of models, tools and data.",
        "type": "object",
        "properties": sections,
        "required": ["apiVersion", "kind", "metadata", "nodes", "outputs"],
        "additionalProperties": False,
        "$defs": {
            "reference": {"type": "string", "pattern": REFERENCE},
            "binding": _binding(),
            "input": _input(),
            "output": _output(),
            "node": _node(),
            **{f"kind-{name}": _kind(spec) for name, spec in KINDS.items()},
            **{f"with-{name}": _with(spec) for name, spec in KINDS.items() if spec.shorthand is None},
        },
    }


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
    """JSON Schema of each field of a struct, with its text."""
    _, components = json.schema_components([struct])
    docs = field_docs(struct)
    properties: dict[str, Schema] = json.decode(json.encode(components[struct.__name__]["properties"]))
    names = {field.encode_name: field.name for field in fields_of(struct)}
    return {
        name: described | ({"description": docs[names[name]]} if names[name] in docs else {})
        for name, described in properties.items()
        if name in names
    }


def _struct(struct: type[msgspec.Struct]) -> Schema:
    return {
        "type": "object",
        "description": (inspect.getdoc(struct) or "").split("\n")[0],
        "properties": field_schemas(struct),
        "required": [field.encode_name for field in fields_of(struct) if field.required],
        "additionalProperties": False,
    }


def _metadata() -> Schema:
    result = _struct(Metadata)
    result["properties"]["name"] |= _name()
    return result


def _context() -> Schema:
    result = _struct(Context)
    result["properties"]["reads"]["items"] = {"enum": sorted(CONTEXT_FIELDS)}
    return result


def _policies() -> Schema:
    result = _struct(Policies)
    properties = result["properties"]
    description = properties.pop("deadline_s")["description"]
    properties["deadline"] = _DURATION | {"description": description}
    return result


def _name() -> Schema:
    return {
        "type": "string",
        "pattern": rf"^[A-Za-z_][A-Za-z0-9_-]{{0,{MAX_NAME_CHARS - 1}}}$",
        "not": {"enum": sorted(RESERVED)},
    }


def _named(each: Schema, description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "propertyNames": _name(),
        "additionalProperties": each,
    }


def _binding() -> Schema:
    """Anything JSON has, in which a text is a reference as a whole or not at all."""
    return {
        "anyOf": [
            {"$ref": "#/$defs/reference"},
            _NOT_A_REFERENCE,
            {"type": ["number", "boolean", "null"]},
            {"type": "array", "items": {"$ref": "#/$defs/binding"}},
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/binding"}},
        ]
    }


def _input() -> Schema:
    limits: dict[str, Schema] = {
        "enum": {"type": "array", "minItems": 1},
        "minimum": {"type": "number"},
        "maximum": {"type": "number"},
        **{
            name: {"type": "integer", "minimum": 0}
            for name in ("minLength", "maxLength", "minItems", "maxItems")
        },
    }
    type_name: Schema = {
        "description": "As string, list[Document], optional[integer], string | integer or {name: string}.",
        "anyOf": [{"enum": sorted(NAMES)}, {"type": "string", "pattern": _TYPE}],
    }
    families = {family: rf"^\s*((optional|stream)\[\s*)*{family}\b[^|]*$" for family in CONSTRAINTS}
    return {
        "anyOf": [
            type_name,
            {
                "type": "object",
                "properties": {
                    "type": type_name,
                    "default": {"description": "The value where none is given."},
                    "description": {"type": "string"},
                    **limits,
                },
                "required": ["type"],
                "allOf": [
                    {
                        "if": {"properties": {"type": {"pattern": pattern}}},
                        "then": {"propertyNames": {"enum": [*_PORT_FIELDS, *sorted(CONSTRAINTS[family])]}},
                    }
                    for family, pattern in families.items()
                ],
                "if": {"properties": {"type": {"not": {"pattern": "|".join((r"\|", *families.values()))}}}},
                "then": {"propertyNames": {"enum": list(_PORT_FIELDS)}},
                "additionalProperties": False,
            },
        ]
    }


def _output() -> Schema:
    reference = {"$ref": "#/$defs/reference"}
    return {
        "anyOf": [
            reference,
            {
                "type": "object",
                "properties": {
                    "from": reference,
                    "optional": {"const": True, "description": "It is null where it is absent."},
                    "default": {"description": "Its value where it is absent."},
                },
                "required": ["from"],
                "not": {"required": ["optional", "default"]},
                "additionalProperties": False,
            },
        ]
    }


def _node() -> Schema:
    kinds = {name: {"$ref": f"#/$defs/kind-{name}"} for name in KINDS}
    return {
        "type": "object",
        "properties": {
            **kinds,
            "with": {"description": "What its inputs are given."},
            "after": {
                "description": "Nodes that must be done before it starts, though it takes nothing from them.",
                "type": "array",
                "items": {"type": "string"},
                "uniqueItems": True,
            },
            "when": {
                "description": "A condition in CEL. Where it does not hold the node is skipped.",
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_CONDITION_CHARS,
                "not": {"pattern": r"\$\{"},
            },
        },
        "oneOf": [{"required": [name]} for name in KINDS],
        "allOf": [{"if": {"required": [name]}, "then": _beside(spec)} for name, spec in KINDS.items()],
        "additionalProperties": False,
    }


def _beside(spec: type[AnySpec]) -> Schema:
    """What a node of a kind must have beside it."""
    if spec.shorthand is not None:
        return {"not": {"required": ["with"]}}
    needed = (
        [] if spec.open_inputs else [key for key, port in example(spec).inputs().items() if port.required]
    )
    return {
        "required": ["with"] if needed else [],
        "properties": {"with": {"$ref": f"#/$defs/with-{spec.kind()}"}},
    }


def _kind(spec: type[AnySpec]) -> Schema:
    if spec.shorthand is not None:
        return {"description": spec.summary, "$ref": "#/$defs/binding"}
    return _struct(spec) | {"description": spec.summary}


def _with(spec: type[AnySpec]) -> Schema:
    binding = {"$ref": "#/$defs/binding"}
    ports: Mapping[str, Port] = example(spec).inputs()
    properties = {name: _given(port) for name, port in ports.items()}
    if spec.open_inputs:
        return {"type": "object", "properties": properties, "additionalProperties": binding}
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, port in ports.items() if port.required],
        "additionalProperties": False,
    }


def _given(port: Port) -> Schema:
    """What a port may be given: a reference, or a constant that fits."""
    described = {"description": port.description} if port.description else {}
    if port.type.name not in _SCALARS:
        return {"$ref": "#/$defs/binding"} | described
    constant = schema(port)
    constant.pop("description", None)
    if port.type.name == "string":
        constant |= {"not": _NOT_A_REFERENCE["not"]}
    return {"anyOf": [{"$ref": "#/$defs/reference"}, constant]} | described


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
