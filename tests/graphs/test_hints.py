"""Type hints as ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, Optional, Required, TypedDict, get_type_hints

import pytest
from msgspec import Meta

from graphs.documents import Document
from graphs.hints import port_of, type_of_hint
from graphs.ports import INTEGER, STRING, Port, parse_type


class Person(TypedDict):
    name: str
    age: NotRequired[int]


class Loose(TypedDict, total=False):
    name: Required[str]
    tags: list[str]


def hints(
    a: str,
    b: int | None,
    c: Optional[float],  # noqa: UP045 — the old way is still written
    d: list[Document],
    e: Sequence[Sequence[bool]],
    f: tuple[int, ...],
    g: Person,
    h: dict[str, Any],
    i: Mapping[str, int],
    j: Any,
    k: str | list[str],
    l: Loose,  # noqa: E741
    m: list,  # type: ignore[type-arg]
    n: Literal["x", "y"],
    o: None,
    p: Annotated[list[Annotated[str, Meta(description="inner")]], Meta(description="outer")],
): ...


EXPECTED = {
    "a": "string",
    "b": "optional[integer]",
    "c": "optional[number]",
    "d": "list[Document]",
    "e": "list[list[boolean]]",
    "f": "list[integer]",
    "g": "{name: string, age?: integer}",
    "h": "object",
    "i": "object",
    "j": "any",
    "k": "string | list[string]",
    "l": "{name: string, tags?: list[string]}",
    "m": "list[any]",
    "n": "string",
    "o": "null",
    "p": "list[string]",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_types(name):
    assert type_of_hint(get_type_hints(hints, include_extras=True)[name]) == parse_type(EXPECTED[name])


@pytest.mark.parametrize("hint", [bytes, set[str], tuple[int, str], type, 3, Meta, list[bytes]])
def test_what_no_port_has_is_refused_by_name(hint):
    with pytest.raises(TypeError, match="is no type of a port"):
        type_of_hint(hint)


def test_bounds_descriptions_and_defaults():
    made = port_of(Annotated[int, Meta(ge=1, le=9, description="how many")], 4)
    assert made == Port(INTEGER, 4, "how many", {"minimum": 1, "maximum": 9})
    assert port_of(Annotated[str, Meta(min_length=1)]) == Port(STRING, constraints={"minLength": 1})
    assert port_of(Annotated[list[str], Meta(max_length=3)]).constraints == {"maxItems": 3}
    assert port_of(Annotated[int | None, Meta(ge=1)]).constraints == {"minimum": 1}


def test_a_choice_of_texts_is_an_enum():
    assert port_of(Literal["a", "b"]) == Port(STRING, constraints={"enum": ["a", "b"]})


def test_the_outermost_description_counts():
    hint = Annotated[Annotated[int, Meta(ge=1, description="inner")], Meta(description="outer")]
    assert port_of(hint) == Port(INTEGER, description="outer", constraints={"minimum": 1})


@pytest.mark.parametrize("hint", [Annotated[int, Meta(gt=0)], Annotated[str, Meta(pattern="a+")]])
def test_a_bound_that_no_input_has_is_refused(hint):
    with pytest.raises(TypeError, match="has no bound"):
        port_of(hint)
