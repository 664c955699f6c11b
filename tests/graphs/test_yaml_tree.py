"""YAML as plain data with places: what the values mean, where they are, and what is refused."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.errors import Position, Problem
from graphs.yaml_tree import MAX_BYTES, MAX_DEPTH, plain, read

TEXT = """\
name: demo
items: [1, two, {three: 3}]
text: |
  first
  second word
quoted: "a b c"
"""


def test_data():
    assert read(TEXT).data == {
        "name": "demo",
        "items": [1, "two", {"three": 3}],
        "text": "first\nsecond word\n",
        "quoted": "a b c",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("yes", "yes"),
        ("no", "no"),
        ("12", 12),
        ("-3", -3),
        ("012", "012"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:00", "12:30:00"),
        ("99999999999999999999999", "99999999999999999999999"),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", "-9223372036854775809"),
    ],
)
def test_plain_scalars_mean_what_they_mean_in_json(text, value):
    assert plain(text) == value


@pytest.mark.parametrize(
    ("problem", "position"),
    [
        (Problem("x", "", ("name",)), Position(1, 7, 4)),
        (Problem("x", "", ("name",), on_key=True), Position(1, 1, 4)),
        (Problem("x", "", ("items", 1)), Position(2, 12, 3)),
        (Problem("x", "", ("items", 2, "three")), Position(2, 25, 1)),
        (Problem("x", "", ("items", 2, "four")), Position(2, 17, 1)),
        (Problem("x", "", ("name", "no", "deeper")), Position(1, 1, 4)),
        (Problem("x", "", ("text",), line_in_text=2, token="word"), Position(5, 10, 4)),
        (Problem("x", "", ("text",), line_in_text=2), Position(5, 3, 11)),
        (Problem("x", "", ("quoted",), line_in_text=1, token="b"), Position(6, 12, 1)),
        (Problem("x", "", ("nothing",)), Position(1, 1, 1)),
    ],
)
def test_locate(problem, position):
    located = read(TEXT).locate(problem)
    assert (located.line, located.column) == (position.line, position.column)


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("a: 1\na: 2", "duplicate", 2, 1),
        ("a: &x 1", "alias", 1, 4),
        ("a: *x", "alias", 1, 4),
        ("a: !!str 1", "tag", 1, 4),
        ("a: !python/object:os.system x", "tag", 1, 4),
        ("a: 1\n---\nb: 2", "many-documents", 2, 1),
        ("a: [1", "bad-yaml", 1, 6),
        ("a: b: c", "bad-yaml", 1, 5),
        ("? [a]\n: 1", "bad-yaml", 1, 3),
        ("[" * (MAX_DEPTH + 1), "too-deep", 1, MAX_DEPTH + 1),
        ("a: \x00", "bad-yaml", 1, 1),
        ("a: \ud800", "bad-yaml", 1, 1),
        ("a" * (MAX_BYTES + 1), "too-large", 1, 1),
    ],
)
def test_refused(text, code, line, column):
    (problem,) = read(text).problems
    assert (problem.code, problem.position.line, problem.position.column) == (code, line, column)


def test_a_reference_without_quotes_in_a_flow_mapping_gets_a_hint():
    (problem,) = read("with: {question: ${inputs.question}}").problems
    assert problem.code == "bad-yaml"
    assert 'quoted, as "${node.port}"' in problem.hint


def test_duplicates_leave_the_first_and_say_where_it_is():
    tree = read("a: {b: 1}\na: {b: 2}\nc: 3")
    assert tree.data == {"a": {"b": 1}, "c": 3}
    assert tree.problems[0].hint == "first on line 1"


def test_bombs_are_refused_at_once():
    aliases = "a: &a [x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(100_000))
    deep = "[" * 1_000_000
    began = time.perf_counter()
    assert [problem.code for problem in read(aliases).problems] == ["alias"]
    assert [problem.code for problem in read(deep).problems] == ["too-deep"]
    assert time.perf_counter() - began < 100


@given(st.text(max_size=80))
def test_no_text_breaks_it(text):
    tree = read(text)
    for problem in tree.problems:
        assert problem.position.line >= 1
        assert problem.position.column >= 1
    assert tree.line(10**9) == ""
