"""Conditions: what they refer to, what they refuse, that they end, and what their types make impossible."""

import pickle
import time

import pytest

from graphs.bindings import Ref
from graphs.conditions import (
    MAX_CONDITION_CHARS,
    MAX_DEPTH,
    MAX_FAULTS,
    MAX_ITEMS,
    Condition,
    ConditionError,
    ConditionRefused,
    Operand,
    condition,
    parse_condition,
    predicate_of,
    references_of,
    renamed,
    type_fault,
)
from graphs.documents import Document
from graphs.ports import (
    ANY,
    BOOLEAN,
    DOCUMENT,
    EMBEDDING,
    INTEGER,
    MESSAGE,
    NUMBER,
    OBJECT,
    STRING,
    list_of,
    optional,
    parse_type,
)

HITS = [Document("1", "a", score=0.75), Document("2", "b")]


def fault_of(source):
    with pytest.raises(ConditionRefused) as refused:
        parse_condition(source)
    return refused.value.faults[0]


def holds(source, types=None, **values):
    """Whether `source` holds, its references `a.x` given as `a_x`."""
    made = condition(source, types or {})
    given = [values[f"{ref.owner}_{ref.port}"] for ref in references_of(source)]
    return predicate_of(made)(given)


def test_references_become_operands():
    made = condition(
        "size(rank.hits) > 0 && // why\n inputs.n == rank.hits[0].line", {Ref("inputs", "n"): INTEGER}
    )
    assert made == Condition(
        "size ( _0 ) > 0 && _1 == _0 [ 0 ] . line",
        (Operand(Ref("rank", "hits")), Operand(Ref("inputs", "n"), "integer")),
    )


def test_names_and_spaces_do_not_matter():
    assert parse_condition("a.x>1").text == parse_condition("other.y  > 1").text


@pytest.mark.parametrize(
    ("source", "refs"),
    [
        ("'a.b' == a.b", [Ref("a", "b")]),
        ('"a.b" == r"\\" + a.c', [Ref("a", "c")]),
        ("a.b.exists(x, x.y == c.d)", [Ref("a", "b"), Ref("c", "d")]),
        ("a.b.filter(x, x > 1).size() > 0 && a.b.all(y, y > 0)", [Ref("a", "b")]),
        ("{'k': a.b}.k == a.b", [Ref("a", "b")]),
        ("loop.break == 1", [Ref("loop", "break")]),
        (
            "my-node.text != '' && a.x-my-node.n > 1",
            [Ref("my-node", "text"), Ref("a", "x"), Ref("my-node", "n")],
        ),
        ("a.x - b.y > 1 && 3-b.y > 1", [Ref("a", "x"), Ref("b", "y")]),
        ("true", []),
    ],
)
def test_what_is_a_reference(source, refs):
    assert list(references_of(source)) == refs


def test_nothing_refers_to_nothing():
    assert references_of(None) == ()
    assert references_of("nonsense(") == ()


@pytest.mark.parametrize(
    ("source", "message", "line", "token"),
    [
        ("a.b >", "the condition ends too early", 1, ">"),
        ("(a.b", "the condition ends too early", 1, "a"),
        ("a.b c.d", "c is not expected here", 1, "c"),
        ("a.b\n  ) ", ") is not expected here", 2, ")"),
        ("a.b @ 1", "@ is not expected here", 1, "@"),
        ("a.b == 'x", "' is not expected here", 1, "'"),
        (".a.b", ". is not expected here", 1, "."),
        ("", "a condition cannot be empty", 1, None),
        ("// nothing", "a condition cannot be empty", 1, None),
        ("nope(a.b)", "unknown function nope", 1, "nope"),
        ("a.b.map(x, x)", "unknown function map", 1, "map"),
        ("a.b.nope()", "unknown function nope", 1, "nope"),
        ("has(a)", "has(a) always holds", 1, "a"),
        ("\ncontext > 1", "context is no reference", 2, "context"),
        ("inputs.size() > 1", "inputs is no reference", 1, "inputs"),
        ("has(a.b)", "has(a.b) always holds", 1, "a"),
        ("a.b.exists(x, a.b.exists(y, x == y))", "a loop inside a loop is not allowed", 1, "exists"),
        ("a.b.exists(_0, true)", "the name _0 begins with an underscore", 1, "_0"),
        ("A{x: 1}.x == 1", "{ is not expected here", 1, "{"),
    ],
)
def test_what_is_refused(source, message, line, token):
    fault = fault_of(source)
    assert (fault.message, fault.line, fault.token) == (message, line, token)


def test_mistakes_are_bounded():
    with pytest.raises(ConditionRefused) as refused:
        parse_condition("!" * 900 + "a.b")
    assert len(refused.value.faults) == MAX_FAULTS


def test_every_mistake_is_named_at_once():
    with pytest.raises(ConditionRefused) as refused:
        parse_condition("siz(a.b) > 1 && inputs")
    assert [fault.token for fault in refused.value.faults] == ["siz", "inputs"]
    assert refused.value.faults[0].hint == "did you mean size?"
    again = pickle.loads(pickle.dumps(refused.value))
    assert again.faults == refused.value.faults


def test_bounds():
    assert "longer than" in fault_of("a.b == '" + "x" * MAX_CONDITION_CHARS + "'").message
    assert "deep" in fault_of("(" * (MAX_DEPTH + 1) + "a.b" + ")" * (MAX_DEPTH + 1)).message
    assert parse_condition("(" * MAX_DEPTH + "a.b" + ")" * MAX_DEPTH).mentions
    with pytest.raises(ConditionError, match="at most 2000 items"):
        holds("a.x.exists(i, i == 1)", a_x=[0] * (MAX_ITEMS + 1))


@pytest.mark.parametrize("source", ["1" + "+1" * 480 + " > 0", "true" + " ? true : true" * 60])
def test_long_chains_end(source):
    began = time.perf_counter()
    assert predicate_of(condition(source, {}))([])
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("sign", ["!", "-"])
def test_signs_do_not_pile_up(sign):
    assert fault_of(f"{sign * 900}a.b > 1").message == f"{sign} three times in a row"
    assert parse_condition(f"{sign * 2}a.b == {sign * 2}a.b").mentions


def test_the_most_work_there_can_be_ends():
    began = time.perf_counter()
    assert holds("a.x.all(i, !(i in b.x))", a_x=list(range(2000)), b_x=list(range(5000, 7000)))
    assert time.perf_counter() - began < 30


def test_values():
    assert holds("a.x.exists(hit, hit.score > 0.5 && hit.source == '')", a_x=HITS)
    assert not holds("size(a.x) > 2", a_x=HITS)
    assert holds("a.x == null", a_x=None)
    assert holds("a.x.lang in ['en', 'de']", a_x={"lang": "de"})
    assert holds("a.x.matches('^[a-z]+$') && a.x.startsWith('w')", a_x="why")


def test_numbers_are_made_what_their_types_say():
    types = {Ref("a", "n"): INTEGER, Ref("a", "x"): NUMBER, Ref("a", "o"): optional(NUMBER)}
    assert holds("a.n + 1 == 4", types, a_n=3.0)
    assert holds("a.x / 2.0 == 1.5", types, a_x=3)
    assert holds("a.o == null || a.o / 2.0 > 1.0", types, a_o=None)


@pytest.mark.parametrize(
    ("source", "value", "message"),
    [
        ("a.x > 1", "text", "do not go together"),
        ("a.x.y > 1", {}, "there is no field y"),
        ("a.x[3] > 1", [1], "index out of bounds"),
        ("size(a.x) > 1", None, "size does not take what it is given"),
        ("1 / a.x > 0", 0, "division by zero"),
        ("a.x", "text", "it gives a string, not true or false"),
        ("a.x.matches('(')", "text", "not a valid regex"),
    ],
)
def test_values_that_do_not_fit(source, value, message):
    with pytest.raises(ConditionError, match=message):
        holds(source, a_x=value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("size(q) > 3 && q != 'q'", "size(inputs.x) > 3 && inputs.x != 'q'"),
        ("a.q > q.a", "a.q > inputs.x.a"),
        ("q(1) == s.i  // q", "q(1) == state2.i  // q"),
        ("not § CEL q", "not § CEL q"),
    ],
)
def test_names_that_stand_for_references(source, expected):
    assert renamed(source, {"q": "inputs.x", "s": "state2"}) == expected


@pytest.mark.parametrize(
    ("source", "port_type", "message"),
    [
        ("a.x > 1", STRING, "do not go together"),
        ("a.x + 1 > 2", NUMBER, "do not go together"),
        ("a.x", STRING, "it gives a string"),
        ("size(a.x)", STRING, "it gives a integer"),
        ("size(a.x) > 1", INTEGER, "size does not take"),
        ("a.x.exists(h, h.scor > 0.5)", list_of(DOCUMENT), "no field scor"),
        ("a.x[0].line + 1.0 > 2.0", list_of(DOCUMENT), "do not go together"),
        ("a.x > 1", INTEGER, None),
        ("a.x", BOOLEAN, None),
        ("a.x[5] > 0.5", EMBEDDING, None),
        ("a.x.role == 'user'", MESSAGE, None),
        ("a.x.whatever > 2", OBJECT, None),
        ("a.x.nam == ''", parse_type("{name: string}"), "there is no field nam"),
        ("a.x.name == ''", parse_type("{name: string}"), None),
        ("a.x.nam == ''", parse_type("{name?: string}"), None),
        ("a.x == ''", parse_type("string | integer"), None),
        ("a.x", ANY, None),
        ("a.x[0] > 2", list_of(ANY), None),
        ("1 / (a.x - 1) > 2", INTEGER, None),
    ],
)
def test_types(source, port_type, message):
    fault = type_fault(parse_condition(source), [port_type], [False])
    assert fault is None if message is None else message in str(fault)


@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("size(a.x) > 1", False),
        ("a.x != null && size(a.x) > 1", True),
        ("a.x == null || size(a.x) > 1", True),
        ("a.x == 'x'", True),
    ],
)
def test_absence_must_be_asked_for(source, right):
    fault = type_fault(parse_condition(source), [STRING], [True])
    assert fault == (None if right else "a.x may be absent: ask for a.x != null first")


def test_what_is_not_known_is_not_judged():
    assert type_fault(parse_condition("a.x > b.y"), [INTEGER, None], [False, False]) is None
