"""Nodes, and the nodes inside them, as a JSON Schema.

A body is written in full, with `nodes` and `outputs`, or as one node: where an author may do either there is
a schema for each, side by side.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphs.bindings import RESERVED
from graphs.conditions import MAX_CONDITION_CHARS
from graphs.fields import Schema, example, struct_schema
from graphs.nodes.agent import AgentTool
from graphs.nodes.http import Secret
from graphs.nodes.registry import KINDS, AnySpec
from graphs.nodes.spec import EFFECTS
from graphs.pipeline import MAX_NAME_CHARS, Cache, Fallback, Retry
from graphs.ports import Port, schema

REFERENCE = r"^\s*\$\{\s*(?!(inputs|context)\s*\})[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_]*)?\s*\}\s*$"
NOT_A_REFERENCE: Schema = {"type": "string", "not": {"pattern": r"(^|[^$])\$\{"}}
DURATION: Schema = {
    "anyOf": [
        {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)\s*$"},
        {"type": "number", "exclusiveMinimum": 0},
    ]
}
_SCALARS = ("string", "integer", "number", "boolean")
_BINDING: Schema = {"$ref": "#/$defs/binding"}
_OTHERS = [name for name in KINDS if name != "map"]


def name_schema() -> Schema:
    """Of a name that an author gives."""
    return {
        "type": "string",
        "pattern": rf"^[A-Za-z_][A-Za-z0-9_-]{{0,{MAX_NAME_CHARS - 1}}}$",
        "not": {"enum": sorted(RESERVED)},
    }


def named(each: Schema, description: str) -> Schema:
    """Of a mapping from names that authors give."""
    return {
        "type": "object",
        "description": description,
        "propertyNames": name_schema(),
        "additionalProperties": each,
    }


def node_schema() -> Schema:
    """Of a node of a pipeline or of a body."""
    return _node(
        {
            "after": {
                "description": "Nodes that must be done before it starts, though it takes nothing from them.",
                "type": "array",
                "items": {"type": "string"},
                "uniqueItems": True,
            },
            "when": _condition("Where it does not hold the node is skipped."),
        }
    )


def kind_schema(spec: type[AnySpec]) -> Schema:
    """Of what stands behind the name of a kind."""
    if spec.shorthand is not None:
        return {"description": spec.summary, "$ref": "#/$defs/binding"}
    settings = struct_schema(spec) | {"description": spec.summary}
    properties = settings["properties"]
    match spec.kind():
        case "map":
            properties["as"] |= name_schema()
            properties |= {"over": _BINDING | {"description": "The list."}, **_body()}
            settings["required"] = ["over", *settings["required"]]
        case "loop":
            properties["as"] |= name_schema()
            properties["until"] = _condition("Whether it ends after this pass.")
            return {"description": spec.summary, **_either(properties, settings["required"])}
        case "branch":
            case = {"when": _condition("Whether the case applies. The last may have none.")}
            return {"description": spec.summary, "type": "array", "minItems": 1, "items": _either(case, [])}
        case "router":
            choice = {"description": properties["choices"].pop("additionalProperties")}
            named_choices = {"additionalProperties": _either(choice, ["description"])}
            properties["choices"] |= {"propertyNames": name_schema(), **named_choices}
        case "agent":
            told = struct_schema(AgentTool)
            told["properties"]["inputs"] = named({"$ref": "#/$defs/input"}, "What the model gives it.")
            tool = _either(told["properties"], told["required"])
            properties["tools"] |= {"propertyNames": name_schema(), "additionalProperties": tool}
        case "http":
            text = properties["headers"]["additionalProperties"]["anyOf"][0]
            properties["headers"]["additionalProperties"] = {"anyOf": [text, struct_schema(Secret)]}
        case "function":
            name = {key: value for key, value in properties["call"].items() if key != "description"}
            return {"description": spec.summary, "anyOf": [name, settings]}
        case _:
            pass
    return settings


def with_schema(spec: type[AnySpec]) -> Schema:
    """Of what the inputs of a node are given."""
    ports: Mapping[str, Port] = example(spec).inputs()
    properties = {name: _given(port) for name, port in ports.items()}
    if spec.open_inputs:
        return {"type": "object", "properties": properties, "additionalProperties": _BINDING}
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, port in ports.items() if port.required],
        "additionalProperties": False,
    }


def _body() -> Schema:
    """The fields of a body in full."""
    return {
        "nodes": named({"$ref": "#/$defs/node"}, "The nodes inside."),
        "outputs": named(_BINDING, "What they give."),
    }


def _either(own: Schema, required: list[str]) -> Schema:
    """A mapping with fields of its own and a body, written in full or as one node."""
    full = {
        "type": "object",
        "properties": {**own, **_body()},
        "required": [*required, "nodes"],
        "additionalProperties": False,
    }
    return {"anyOf": [full, _node(own, required)]}


def _node(own: Schema, required: list[str] | None = None) -> Schema:
    """A node with other fields beside it. A map may have the one node of its body beside it."""
    inside = {"anyOf": [{"required": [name]} for name in _OTHERS]}
    in_full = {"properties": {"map": {"required": ["nodes"]}}, "not": {"required": ["with"]}}
    without = {
        "properties": {"map": {"not": {"anyOf": [{"required": ["nodes"]}, {"required": ["outputs"]}]}}}
    }
    return {
        "type": "object",
        "properties": {
            **own,
            **{name: {"$ref": f"#/$defs/kind-{name}"} for name in KINDS},
            "with": {"description": "What its inputs are given."},
            **{name: {"$ref": f"#/$defs/{name}"} for name in treatment_schema()},
        },
        "required": required or [],
        "anyOf": [
            {"oneOf": [{"required": [name]} for name in KINDS]},
            {"required": ["map"], "oneOf": [{"required": [name]} for name in _OTHERS]},
        ],
        "allOf": [
            *({"if": {"required": [name]}, "then": _beside(KINDS[name])} for name in _OTHERS),
            {"if": {"required": ["map"], "not": inside}, "then": in_full, "else": without},
        ],
        "additionalProperties": False,
    }


def treatment_schema() -> Schema:
    """Of what stands beside any kind, by its name."""
    fallback = struct_schema(Fallback)
    cached = fallback["properties"]["cached"]
    fallback["properties"]["cached"] = {"description": cached["description"], "const": True}
    return {
        "retry": struct_schema(Retry),
        "timeout": DURATION | {"description": "Most time that one try may take."},
        "fallback": {
            "description": "What takes the place of a node that failed, tried in turn.",
            "type": "array",
            "items": fallback | {"minProperties": 1, "maxProperties": 1},
        },
        "effects": {"description": "Its side effects, in place of its kind's.", "enum": list(EFFECTS)},
        "cache": cache_schema(),
    }


def cache_schema() -> Schema:
    result = struct_schema(Cache)
    ttl = result["properties"]["ttl"]
    result["properties"]["ttl"] = DURATION | {"description": ttl["description"]}
    return result


def _condition(meaning: str) -> Schema:
    return {
        "description": f"A condition in CEL. {meaning}",
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_CONDITION_CHARS,
        "not": {"pattern": r"\$\{"},
    }


def _beside(spec: type[AnySpec]) -> Schema:
    """What a node of a kind must have beside it."""
    if spec.shorthand is not None or (spec.holds_nodes and not spec.open_inputs and not _ports(spec)):
        return {"not": {"required": ["with"]}}
    needed = [] if spec.open_inputs else [key for key, port in _ports(spec).items() if port.required]
    return {
        "required": ["with"] if needed else [],
        "properties": {"with": {"$ref": f"#/$defs/with-{spec.kind()}"}},
    }


def _ports(spec: type[AnySpec]) -> Mapping[str, Port]:
    return example(spec).inputs()


def _given(port: Port) -> Schema:
    """What a port may be given: a reference, or a constant that fits."""
    described = {"description": port.description} if port.description else {}
    if port.type.name not in _SCALARS:
        return _BINDING | described
    constant = schema(port)
    constant.pop("description", None)
    if port.type.name == "string":
        constant |= {"not": NOT_A_REFERENCE["not"]}
    return {"anyOf": [{"$ref": "#/$defs/reference"}, constant]} | described
