"""The least JSON value that a JSON Schema takes, for an engine that is held to one without a model.

    {type: object, properties: {label: {enum: [a, b]}}, required: [label]}   ─►   {"label": "a"}

Of alternatives the first is taken, of properties those that are required. Patterns and formats are not met.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator, SchemaError

from cluster.errors import InvalidCall

MAX_DEPTH = 32
MAX_VALUES = 10_000
"""Values, one inside the other, of one instance."""
MAX_CHARS = 10_000
"""Of a text that a schema asks for."""


def least_instance(schema: Any) -> Any:
    """Raises `InvalidCall` for what is no schema, and where the least value is too large or has no end."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidCall(f"not a JSON Schema: {error.message[:200]}", param="response_format") from error
    return _Instance(schema).least(schema, MAX_DEPTH)


class _Instance:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = MAX_VALUES

    def least(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if depth == 0 or self._left < 0:
            raise InvalidCall("the least value of the schema is too large", param="response_format")
        if not isinstance(schema, dict):
            return None
        if "$ref" in schema:
            return self.least(self._resolved(schema["$ref"]), depth - 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self.least(schema[several][0], depth - 1)
        return self._of_type(schema, depth - 1)

    def _of_type(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "null")
        match kind if isinstance(kind, str) else kind[0]:
            case "object":
                properties = schema.get("properties", {})
                return {name: self.least(properties.get(name), depth) for name in schema.get("required", ())}
            case "array":
                count = min(int(schema.get("minItems", 0)), MAX_VALUES)
                return [self.least(schema.get("items"), depth) for _ in range(count)]
            case "string":
                wanted = max(1, int(schema.get("minLength", 0)))
                return "x" * min(wanted, int(schema.get("maxLength", wanted)), MAX_CHARS)
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return False
        return None

    def _resolved(self, reference: str) -> Any:
        """What a reference into the same schema leads to; None where it leads nowhere."""
        found = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            found = found.get(step) if isinstance(found, dict) else None
        return found


def _number(schema: dict[str, Any]) -> float:
    """0 where the bounds allow it, else the bound that keeps it out."""
    low, high = schema.get("minimum", 0), schema.get("maximum", 0)
    above, below = schema.get("exclusiveMinimum", -1) + 1, schema.get("exclusiveMaximum", 1) - 1
    least: float = max(0, low, above)
    return least if least > 0 else min(0, high, below)
