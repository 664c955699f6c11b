"""Schemas of answers: what is refused and where, what fits, and the types of what fits."""

import pytest

from graphs.answer_schema import MAX_BYTES, MAX_DEPTH, read_schema
from graphs.ports import parse_type

LABEL = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
FAULTS = {
    "unknown keyword": ({"typ": "string"}, "typ cannot", ("typ",), "did you mean type?"),
    "pattern": ({"type": "string", "pattern": "(a+)+"}, "pattern cannot", ("pattern",), None),
    "inside": (
        {"properties": {"a": {"items": {"oneOf": []}}}},
        "oneOf cannot",
        ("properties", "a", "items", "oneOf"),
        "did you mean anyOf?",
    ),
    "no such type": ({"type": "strin"}, "'strin'", ("type",), None),
    "not a schema": ({"properties": {"a": 3}}, "3 is not of type", ("properties", "a"), None),
    "empty enum": ({"enum": []}, "nothing fits", ("enum",), None),
    "format": ({"type": "string", "format": "dat"}, "format dat", ("format",), "did you mean date?"),
    "too many": ({"type": "array", "minItems": 10_000}, "at most", ("minItems",), None),
    "required": (
        {"properties": {"label": {}}, "required": ["lable"]},
        "lable is required, but no property",
        ("required", 0),
        "did you mean label?",
    ),
    "outside": ({"$ref": "https://example.com/a"}, "there is no https", ("$ref",), None),
    "root": ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "there is no #", ("anyOf", 0, "$ref"), None),
    "nowhere": (
        {"$defs": {"item": {}}, "$ref": "#/$defs/itme"},
        "there is no #/$defs/itme",
        ("$ref",),
        "did you mean #/$defs/item?",
    ),
    "round": (
        {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}},
        "go round: b → a → b",
        ("$defs", "a", "items", "$ref"),
        None,
    ),
    "unused but broken": (
        {"$defs": {"a": {"$ref": "#/$defs/c"}}},
        "there is no",
        ("$defs", "a", "$ref"),
        None,
    ),
    "definitions inside": (
        {"items": {"$defs": {}}},
        "$defs cannot",
        ("items", "$defs"),
        "define it at the top",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name):
    schema, message, path, hint = FAULTS[name]
    (fault,) = read_schema(schema).faults
    assert message in fault.message
    assert fault.path == path
    assert hint is None or fault.hint == hint


def test_every_fault_is_told_at_once():
    faults = read_schema({"typ": "string", "properties": {"a": {"pattern": "x"}}}).faults
    assert {fault.path for fault in faults} == {("typ",), ("properties", "a", "pattern")}


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubled(times):
    """Definitions that each refer twice to the next."""
    definitions = {
        f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
        for i in range(times)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{times}": {"type": "null"}}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"description": "x" * MAX_BYTES}, "larger than"),
        (nested(MAX_DEPTH), "deep"),
        (nested(200), "deep"),
        (doubled(10), "more than"),
        (doubled(60), "more than"),
    ],
)
def test_bombs(schema, message):
    (fault,) = read_schema(schema).faults
    assert message in fault.message


def test_the_largest_that_are_taken():
    assert read_schema(nested(MAX_DEPTH - 1)).faults == ()
    assert read_schema(doubled(3)).faults == ()


TYPES = {
    "object": {"type": "object"},
    "{label?: any}": {"type": "object", "properties": {"label": {}}},
    "string": {"type": "string"},
    "integer": {"const": 3},
    "number": {"type": ["integer", "number"]},
    "optional[string]": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "optional[integer]": {"type": ["integer", "null"]},
    "list[string]": {"type": "array", "items": {"enum": ["a", "b"]}},
    "list[any]": {"type": "array"},
    "list[list[boolean]]": {
        "type": "array",
        "items": {"$ref": "#/$defs/row"},
        "$defs": {"row": {"type": "array", "items": {"type": "boolean"}}},
    },
    "any": {},
    "null": {"type": "null"},
    "string | integer": {"type": ["integer", "string"]},
    "{label: string, sure?: list[number]}": {
        "type": "object",
        "properties": {"label": {"enum": ["a", "b"]}, "sure": {"type": "array", "items": {"type": "number"}}},
        "required": ["label"],
    },
}


@pytest.mark.parametrize("name", TYPES)
def test_types(name):
    read = read_schema(TYPES[name])
    assert read.faults == ()
    assert read.type == parse_type(name)


def test_a_broken_schema_has_a_type_all_the_same():
    assert read_schema({"$ref": "#/$defs/no"}).type == parse_type("any")


def test_misfits():
    read = read_schema(LABEL)
    assert read.misfit({"label": "a"}) is None
    assert read.misfit({"label": "c"}) == "$.label: 'c' is not one of ['a', 'b']"
    assert "'label' is a required property" in read.misfit({})
