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
    Field,
    Port,
    assignable,
    common,
    constraints_of,
    faults,
    list_of,
    object_schema,
    optional,
    parse_type,
    record_of,
    schema,
    stream_of,
    type_of,
    union_of,
)


def record(**fields):
    return record_of(Field(name, port_type) for name, port_type in fields.items())


@pytest.mark.parametrize(
    "text",
    [
        "string",
        "list[Document]",
        "optional[list[list[integer]]]",
        "integer | string",
        "list[optional[integer | string]]",
        "{age?: integer, name: string}",
        "list[string | {address: {city: string}, tags?: list[string]}]",
        "stream[string]",
    ],
)
def test_type_text_round_trip(text):
    assert str(parse_type(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strng", "unknown type strng$"),
        ("list[string", "] is expected, not the end"),
        ("list[string]]", "nothing more is expected, but there is ]"),
        ("string integer", "nothing more is expected, but there is integer"),
        ("string |", "unknown type $"),
        ("{name string}", ": is expected, not string"),
        ("{name: strng}", "unknown type strng$"),
        ("{name: string,}", "a field has a name, as {name: string}, and not }"),
        ("{}", "a field has a name"),
        ("{a: string, a: integer}", "two fields a"),
        ("{" + ", ".join(f"f{n}: any" for n in range(33)) + "}", "at most 32 fields"),
        (" | ".join(["string"] * 9), "at most 8 members"),
        ("{a: " * 9 + "string" + "}" * 9, "at most 8 deep"),
        (
            "{" + ", ".join(f"f{n}:{{a:any,b:any,c:any,d:any,e:any}}" for n in range(26)) + "}",
            "at most 128",
        ),
        ("stream[string] | null", "nothing more"),
        ("list[stream[string]]", "never inside another type"),
        ("string" * 200, "at most 1000 characters"),
        ("list", "needs the type"),
        ("list[strng]", "unknown type strng"),
        ("list[" * 9 + "string" + "]" * 9, "at most 8 deep"),
        ("", "unknown type"),
    ],
)
def test_bad_type_is_named(text, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("]", r"\]").replace("|", r"\|")):
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
        ("string", "string | integer", True),
        ("string | integer", "string", False),
        ("string | integer", "string | number", True),
        ("string | integer", "integer | string | null", True),
        ("optional[string]", "string | integer", False),
        ("optional[string]", "optional[string | integer]", True),
        ("list[string | integer]", "list[string] | list[integer]", False),
        ("list[string] | Embedding", "list[string | number]", True),
        ("{name: string, age: integer}", "{name: string}", True),
        ("{name: string}", "{name: string, age: integer}", False),
        ("{name: string}", "{name?: string}", True),
        ("{name?: string}", "{name: string}", False),
        ("{name: integer}", "{name: number}", True),
        ("{name: string}", "{name: string, more?: any}", True),
        ("{name: string}", "{name: string, age?: integer}", False),
        ("{name: string}", "object", True),
        ("object", "{name?: string}", False),
        ("string", "{name?: any}", False),
        ("Document", "{id: string, text: string, score?: number}", True),
        ("Document", "{id: string, score: number}", False),
        ("{id: string, text: string}", "Document", False),
        ("Message", "{role: string}", True),
        ("{a: {b: string, c: any}}", "{a: {b: string}}", True),
    ],
)
def test_assignable(source, target, fits):
    source, target = (parse_type(kind) if isinstance(kind, str) else kind for kind in (source, target))
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
        ([1, "a"], list_of(union_of([INTEGER, STRING]))),
        ([1, "a", None], list_of(optional(union_of([INTEGER, STRING])))),
        ({"b": 1, "a": "x"}, record(a=STRING, b=INTEGER)),
        ([{"a": 1}, {"a": 2.5}], list_of(record(a=NUMBER))),
        ({"not a name": 1}, OBJECT),
        ({str(i): 1 for i in range(99)}, OBJECT),
        ([], list_of(ANY)),
        ({}, OBJECT),
    ],
)
def test_type_of(value, expected):
    assert type_of(value) == expected


class TestCommon:
    def test_is_the_widest_of_them(self):
        assert common([INTEGER, NUMBER, INTEGER]) == NUMBER

    def test_is_a_union_of_a_few(self):
        assert common([STRING, NUMBER]) == union_of([STRING, NUMBER])
        assert common([STRING, NULL, NUMBER]) == optional(union_of([STRING, NUMBER]))

    def test_of_many_says_no_more_than_any(self):
        assert common([STRING, NUMBER, BOOLEAN, EMBEDDING, OBJECT]) == ANY

    def test_of_many_records_is_an_object(self):
        records = [record(**{f"f{number}": STRING}) for number in range(200)]
        assert common(records[:4]).members
        assert common(records[:5]) == common(records) == OBJECT
        assert common([*records, STRING]) == ANY


class TestUnions:
    def test_are_the_same_in_every_order(self):
        assert parse_type("string | integer") == parse_type("integer|string|integer")
        assert str(parse_type("string | integer")) == "integer | string"

    def test_lose_what_another_member_takes(self):
        assert parse_type("integer | number") == NUMBER
        assert parse_type("string | any") == ANY
        assert parse_type("Document | object | string") == union_of([OBJECT, STRING])
        assert parse_type("null | null") == NULL

    def test_with_null_are_optional(self):
        assert parse_type("string | null") == optional(STRING)
        assert str(parse_type("null | string | integer")) == "optional[integer | string]"
        assert parse_type("optional[string] | integer") == optional(union_of([STRING, INTEGER]))

    def test_of_types_that_take_each_other_are_the_first(self):
        equal = "{a: string} | {a: string, b?: any}"
        assert parse_type(equal) == parse_type("{a: string, b?: any}")


class TestRecords:
    def test_are_the_same_in_every_order(self):
        assert parse_type("{b: string, a?: integer}") == parse_type("{a?: integer, b: string}")

    def test_are_objects_where_no_type_can_say_their_fields(self):
        assert record_of([]) == record_of(Field(f"f{number}", ANY) for number in range(33)) == OBJECT
        assert record_of([Field("a b", ANY)]) == OBJECT

    def test_that_grow_for_ever_are_cut(self):
        grown = STRING
        for _ in range(100):
            grown = record(a=grown, b=list_of(grown))
            assert len(str(grown)) < 2_000


class TestStreams:
    def test_flow_as_what_they_end_as(self):
        assert assignable(stream_of(STRING), STRING)
        assert assignable(STRING, stream_of(STRING))
        assert not assignable(stream_of(STRING), INTEGER)
        assert schema(Port(parse_type("stream[string]"), constraints={"minLength": 1})) == {
            "type": "string",
            "minLength": 1,
        }

    def test_are_whole_inside_another_type(self):
        assert list_of(stream_of(STRING)) == list_of(STRING)
        assert optional(stream_of(STRING)) == optional(STRING) == union_of([stream_of(STRING), NULL])
        assert record_of([Field("a", stream_of(STRING))]) == record(a=STRING)


def test_schema_carries_constraints_default_and_description():
    port = Port(optional(INTEGER), default=3, description="how many", constraints={"minimum": 1})
    assert schema(port) == {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}],
        "description": "how many",
        "default": 3,
    }


def test_every_schema_is_a_schema():
    types = ("any", "Document", "Message", "Embedding", "list[Document]", "optional[Embedding]")
    for name in (*types, "string | {a?: list[integer]}", "stream[string]"):
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
