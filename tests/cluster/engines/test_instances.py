from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cluster.engines.instances import least_instance
from cluster.errors import InvalidCall

LABEL = {"enum": ["good", "bad"]}


@pytest.mark.parametrize(
    ("schema", "least"),
    [
        (LABEL, "good"),
        ({"const": 3}, 3),
        (
            {"type": "object", "properties": {"a": LABEL, "b": {"type": "string"}}, "required": ["a"]},
            {"a": "good"},
        ),
        ({"properties": {"a": {}}, "required": ["a", "b"]}, {"a": None, "b": None}),
        ({"anyOf": [{"type": "string"}, LABEL]}, "x"),
        ({"oneOf": [{"type": "boolean"}]}, False),
        ({"type": "array", "items": LABEL, "minItems": 2}, ["good", "good"]),
        ({"type": "array"}, []),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": "string", "maxLength": 0}, ""),
        ({"type": ["integer", "null"]}, 0),
        ({"type": "integer", "minimum": 4}, 4),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "number", "exclusiveMaximum": -2}, -3),
        ({"type": "number", "minimum": -5}, 0),
        ({"type": "null"}, None),
        ({}, None),
        (True, None),
        ({"$ref": "#/$defs/label", "$defs": {"label": LABEL}}, "good"),
    ],
)
def test_least(schema: object, least: object) -> None:
    assert least_instance(schema) == least
    assert Draft202012Validator(schema).is_valid(least)


def test_a_reference_that_leads_nowhere() -> None:
    assert least_instance({"$ref": "#/$defs/none"}) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objet"},
        {"type": "string", "minLength": "a"},
        {"$ref": "#"},
        {"type": "array", "minItems": 200, "items": {"type": "array", "minItems": 200, "items": {}}},
        {"type": "array", "minItems": 10**9, "items": {"type": "null"}},
    ],
)
def test_what_has_no_least_value_is_refused(schema: object) -> None:
    with pytest.raises(InvalidCall) as refused:
        least_instance(schema)
    assert refused.value.param == "response_format"


SCALARS = st.sampled_from([{"type": "string"}, {"type": "integer"}, {"type": "boolean"}, LABEL])
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: (
        st.builds(lambda item, n: {"type": "array", "items": item, "minItems": n}, inner, st.integers(0, 2))
        | st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": [*fields]},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        )
        | st.builds(lambda first, other: {"anyOf": [first, other]}, inner, inner)
    ),
    max_leaves=8,
)


@given(SCHEMAS)
def test_the_least_instance_is_one(schema: dict[str, object]) -> None:
    assert Draft202012Validator(schema).is_valid(least_instance(schema))
