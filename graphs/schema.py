"""The language as a JSON Schema (draft 2020-12), for editors that complete and check YAML as it is written.

Made from the node kinds themselves, so that it cannot lag behind them. A schema knows neither names nor the
types of references: what it lets through is still checked by the loader, what it refuses the loader refuses.
"""

from __future__ import annotations

from graphs.fields import Schema, struct_schema
from graphs.node_schema import (
    DURATION,
    NOT_A_REFERENCE,
    REFERENCE,
    cache_schema,
    kind_schema,
    name_schema,
    named,
    node_schema,
    treatment_schema,
    with_schema,
)
from graphs.nodes.registry import KINDS
from graphs.pipeline import API_VERSION, CONTEXT_FIELDS, MAX_NODES, Chat, Context, Metadata, Policies
from graphs.ports import CONSTRAINTS, NAMES

_TYPE = (
    rf"^([\s|{{}}\[\],?:]|({'|'.join(sorted({*NAMES, 'list', 'optional', 'stream'}))})(?![A-Za-z0-9_-])"
    r"|[A-Za-z_][A-Za-z0-9_-]*(?=\s*\??\s*:))+$"
)
"""The words and signs of types and names of fields. Whether they nest as types do is the loader's to say."""
_PORT_FIELDS = ("type", "default", "description")


def language_schema() -> Schema:
    """The schema of a pipeline's file."""
    sections: Schema = {
        "apiVersion": {"const": API_VERSION},
        "kind": {"const": "Pipeline"},
        "metadata": _metadata(),
        "inputs": named({"$ref": "#/$defs/input"}, "What a run is given."),
        "context": _context(),
        "nodes": named({"$ref": "#/$defs/node"}, "The steps, in any order.") | {"maxProperties": MAX_NODES},
        "outputs": named({"$ref": "#/$defs/output"}, "What a run gives back."),
        "chat": struct_schema(Chat),
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
            "node": node_schema(),
            **treatment_schema(),
            **{f"kind-{name}": kind_schema(spec) for name, spec in KINDS.items()},
            **{f"with-{name}": with_schema(spec) for name, spec in KINDS.items() if spec.shorthand is None},
        },
    }


def _metadata() -> Schema:
    result = struct_schema(Metadata)
    result["properties"]["name"] |= name_schema()
    return result


def _context() -> Schema:
    result = struct_schema(Context)
    result["properties"]["reads"]["items"] = {"enum": sorted(CONTEXT_FIELDS)}
    return result


def _policies() -> Schema:
    result = struct_schema(Policies)
    properties = result["properties"]
    description = properties.pop("deadline_s")["description"]
    properties["deadline"] = DURATION | {"description": description}
    properties["cache"] = cache_schema() | {"description": properties["cache"]["description"]}
    return result


def _binding() -> Schema:
    """Anything JSON has, in which a text is a reference as a whole or not at all."""
    return {
        "anyOf": [
            {"$ref": "#/$defs/reference"},
            NOT_A_REFERENCE,
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
