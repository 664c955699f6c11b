"""Laws of port types: what flows where is an order, and JSON Schema agrees with it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from graphs.ports import (
    ANY,
    NAMES,
    Field,
    PortType,
    assignable,
    common,
    list_of,
    optional,
    parse_type,
    record_of,
    stream_of,
    type_of,
    type_schema,
    union_of,
)

names = st.sampled_from(["a", "b", "id", "role", "text"])
texts = st.sampled_from(["", "a", "user"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


def wider(inner):
    fields = st.dictionaries(names, st.tuples(inner, st.booleans()), min_size=1, max_size=3)
    return st.one_of(
        inner.map(list_of),
        inner.map(optional),
        st.lists(inner, min_size=1, max_size=3).map(union_of),
        fields.map(lambda found: record_of(Field(name, *rest) for name, rest in found.items())),
    )


types = st.recursive(st.sampled_from(sorted(NAMES)).map(PortType), wider, max_leaves=5)


def values_of(port_type: PortType) -> st.SearchStrategy:
    """Values of the type; of a record also such with fields that it does not name."""
    if port_type.members:
        return st.one_of(*map(values_of, port_type.members))
    if port_type.fields:
        required = {field.name: values_of(field.type) for field in port_type.fields if field.required}
        free = {field.name: values_of(field.type) for field in port_type.fields if not field.required}
        others = st.dictionaries(st.sampled_from(["x", "y"]), json_values, max_size=1)
        known = st.fixed_dictionaries(required, optional=free)
        return st.tuples(others, known).map(lambda both: both[0] | both[1])
    match port_type.name:
        case "list":
            return st.lists(values_of(port_type.item), max_size=2)
        case "optional":
            return st.none() | values_of(port_type.item)
        case "Document":
            return values_of(parse_type("{id: string, text: string, score?: number, line?: integer}"))
        case "Message":
            return st.fixed_dictionaries({"role": st.just("user")}, optional={"content": texts})
        case "Embedding":
            return st.lists(st.floats(-1, 1), min_size=1, max_size=2)
        case "object":
            return st.dictionaries(names, json_values, max_size=3)
        case "any":
            return json_values
    scalars = {"null": st.none(), "string": texts, "boolean": st.booleans()}
    numbers = {"integer": st.integers(-2, 2), "number": st.integers(-2, 2) | st.floats(-2, 2)}
    return (scalars | numbers)[port_type.name]


@given(types)
def test_every_type_takes_itself_and_any_takes_every_type(port_type):
    assert assignable(port_type, port_type)
    assert assignable(port_type, ANY)
    assert assignable(stream_of(port_type), port_type)


@given(types)
def test_the_text_of_a_type_is_read_back_as_the_same(port_type):
    assert parse_type(str(port_type)) == port_type
    assert parse_type(str(stream_of(port_type))) == stream_of(port_type)


@settings(max_examples=400)
@given(types, types, types)
def test_what_flows_on_flows_straight(first, second, third):
    second = union_of([first, second]) if not assignable(first, second) else second
    third = union_of([second, third]) if not assignable(second, third) else third
    assert assignable(first, second)
    assert assignable(second, third)
    assert assignable(first, third)


@settings(max_examples=400)
@given(types, types, st.data())
def test_a_value_that_may_flow_fits_where_it_flows(source, target, data):
    value = data.draw(values_of(source))
    assert Draft202012Validator(type_schema(source)).is_valid(value)
    if assignable(source, target):
        assert Draft202012Validator(type_schema(target)).is_valid(value)


@given(json_values)
def test_a_value_has_its_type(value):
    assert Draft202012Validator(type_schema(type_of(value))).is_valid(value)


@given(st.lists(types, min_size=1, max_size=4))
def test_what_is_common_takes_all_in_every_order(several):
    for made in (common(several), union_of(several)):
        assert all(assignable(each, made) for each in several)
    assert common(several) == common(several[::-1])
    assert union_of(several) == union_of(several[::-1])


@pytest.mark.parametrize("name", ["Document", "Message"])
def test_types_with_a_name_have_the_fields_that_their_schema_has(name):
    described = type_schema(PortType(name))
    for field in described["properties"]:
        required = assignable(PortType(name), record_of([Field(field, ANY)]))
        assert required is (field in described["required"])
        assert not assignable(PortType(name), record_of([Field(field, PortType("boolean"), required=False)]))
