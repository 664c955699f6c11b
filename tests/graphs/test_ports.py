"""Port types: their text, their schema, and what flows into what."""

import pytest
from jsonschema import Draft202012Validator

from graphs.ports import (
    ANY,
    BOOLEAN,
    DOCUMENT,
    EMBEDDING,
    INTEGER,
    MESSAGE,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    Port,
    assignable,
    common,
    constraints_of,
    faults,
    list_of,
    object_schema,
    optional,
    parse_type,
    schema,
    type_of,
)


@pytest.mark.parametrize("text", ["string", "Document", "list[Document]", "optional[list[list[integer]]]"])
def test_type_text_round_trip(text):
    assert str(parse_type(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strng", "unknown type strng"),
        ("list", "needs the type"),
        ("list[strng]", "unknown type strng"),
        ("list[" * 9 + "string" + "]" * 9, "at most 8 deep"),
        ("", "unknown type"),
    ],
)
def test_bad_type_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_type(text)


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        (STRING, STRING, True),
        (STRING, ANY, True),
        (ANY, STRING, False),
        (INTEGER, NUMBER, True),
        (NUMBER, INTEGER, False),
        (BOOLEAN, INTEGER, False),
        (DOCUMENT, OBJECT, True),
        (OBJECT, DOCUMENT, False),
        (DOCUMENT, MESSAGE, False),
        (list_of(INTEGER), list_of(NUMBER), True),
        (list_of(NUMBER), list_of(INTEGER), False),
        (EMBEDDING, list_of(NUMBER), True),
        (list_of(NUMBER), EMBEDDING, False),
        (STRING, optional(STRING), True),
        (NULL, optional(STRING), True),
        (optional(INTEGER), optional(NUMBER), True),
        (optional(STRING), STRING, False),
        (NULL, STRING, False),
    ],
)
def test_assignable(source, target, fits):
    assert assignable(source, target) is fits


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, NULL),
        (True, BOOLEAN),
        (1, INTEGER),
        (1.5, NUMBER),
        ("a", STRING),
        ([1, 2.5], list_of(NUMBER)),
        ([1, "a"], list_of(ANY)),
        ([], list_of(ANY)),
        ({}, OBJECT),
    ],
)
def test_type_of(value, expected):
    assert type_of(value) == expected


def test_common_is_the_widest_of_them():
    assert common([INTEGER, NUMBER, INTEGER]) == NUMBER
    assert common([STRING, NUMBER]) == ANY


def test_schema_carries_constraints_default_and_description():
    port = Port(optional(INTEGER), default=3, description="how many", constraints={"minimum": 1})
    assert schema(port) == {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}],
        "description": "how many",
        "default": 3,
    }


def test_every_schema_is_a_schema():
    for name in ("any", "Document", "Message", "Embedding", "list[Document]", "optional[Embedding]"):
        Draft202012Validator.check_schema(schema(Port(parse_type(name))))
    assert parse_type("Document") == DOCUMENT


def test_schemas_are_fresh():
    schema(Port(STRING, constraints={"minLength": 3}))
    assert schema(Port(STRING)) == {"type": "string"}


def test_faults_of_a_constant():
    port = Port(INTEGER, constraints={"minimum": 1})
    assert faults(port, 0) == ["0 is less than the minimum of 1"]
    assert faults(port, 1) == []


def test_object_schema_requires_what_has_no_default():
    made = object_schema({"a": Port(STRING), "b": Port(INTEGER, default=1), "c": Port(optional(STRING))})
    assert made["required"] == ["a"]
    assert made["additionalProperties"] is False
    assert set(made["properties"]) == {"a", "b", "c"}


def test_only_keywords_that_end_may_constrain():
    assert "pattern" not in constraints_of(STRING)
    assert constraints_of(optional(STRING)) == constraints_of(STRING)
    assert constraints_of(OBJECT) == frozenset()
