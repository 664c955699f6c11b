"""Every kind of mistake that the policies of a node can have, and where it is found."""

import pytest

from graphs.bindings import Literal, Ref
from graphs.loader import load
from graphs.nodes.value import Value
from graphs.pipeline import Metadata, Node, NodeId, Pipeline
from graphs.validation import check
from tests.graphs.broken import ANSWER, HEAD, TAIL, assert_mistake

BROKEN = {
    "fallback of nothing": ("{llm: {model: m}, with: {prompt: a}, fallback: [{}]}", "bad-fallback", 54, None),
    "fallback of two things": (
        "{llm: {model: m}, with: {prompt: a}, fallback: [{model: m, value: a}]}",
        "bad-fallback",
        54,
        None,
    ),
    "fallback that is no list": (
        "{llm: {model: m}, with: {prompt: a}, fallback: {model: m}}",
        "bad-value",
        53,
        None,
    ),
    "fallback to a model of a kind without": ("{value: 1, fallback: [{model: m}]}", "bad-fallback", 29, None),
    "fallback of another type": (
        "{llm: {model: m}, with: {prompt: a}, fallback: [{value: 3}]}",
        "type-mismatch",
        62,
        None,
    ),
    "fallback of a map that is no mapping": (
        '{map: {over: "${l}"}, value: 1, fallback: [{value: 3}]}',
        "bad-fallback",
        57,
        "give a mapping of all outputs: value",
    ),
    "fallback that lacks an output": (
        '{map: {over: "${l}"}, value: 1, fallback: [{value: {vale: []}}]}',
        "bad-fallback",
        57,
        None,
    ),
    "misspelt fallback": (
        "{llm: {model: m}, with: {prompt: a}, fallback: [{modl: m}]}",
        "unknown-field",
        55,
        "did you mean model?",
    ),
    "retry too often": ("{value: 1, retry: {attempts: 11}}", "bad-value", 35, None),
    "retry once": ("{value: 1, retry: {attempts: 1}}", "bad-value", 35, None),
    "retry on something unknown": ("{value: 1, retry: {on: [unavailble]}}", "bad-value", 29, None),
    "retry that is a number": ("{value: 1, retry: 3}", "bad-value", 24, None),
    "retry of what has effects": (
        "{value: 1, effects: effectful, retry: {attempts: 2}}",
        "retry-effects",
        37,
        "write effects: idempotent beside it, if it may be run twice",
    ),
    "retry around what has effects": (
        '{map: {over: "${l}", nodes: {b: {value: 1, effects: effectful}}}, retry: {attempts: 2}}',
        "retry-effects",
        72,
        "write effects: idempotent beside it, if it may be run twice",
    ),
    "fallback to what nobody keeps": (
        "{llm: {model: m, temperature: 0}, with: {prompt: a}, fallback: [{cached: true}]}",
        "bad-fallback",
        71,
        "write cache: {ttl: 10m} beside it",
    ),
    "fallback that is not cached": (
        "{llm: {model: m}, with: {prompt: a}, cache: {ttl: 1s}, fallback: [{cached: false}]}",
        "bad-fallback",
        72,
        None,
    ),
    "cache without a ttl": ("{value: 1, cache: {}}", "missing", 17, None),
    "cache that is no mapping": ("{value: 1, cache: 10m}", "bad-value", 24, None),
    "cache of nothing": ("{value: 1, cache: {ttl: 0}}", "bad-value", 30, None),
    "cache of years": ("{value: 1, cache: {ttl: 169h}}", "bad-cache", 30, None),
    "cache of effects": (
        "{tool: {server: s, tool: t}, cache: {ttl: 1m}}",
        "bad-cache",
        35,
        "write effects: idempotent beside it, if leaving it out does no harm",
    ),
    "cache of what a person says": (
        "{approval: {message: a}, effects: pure, with: {value: 1}, cache: {ttl: 1m}}",
        "bad-cache",
        64,
        None,
    ),
    "timeout of nothing": ("{value: 1, timeout: 0}", "bad-value", 26, None),
    "timeout of hours": ("{value: 1, timeout: 61m}", "bad-timeout", 26, None),
    "timeout that is no time": ("{value: 1, timeout: soon}", "bad-value", 26, None),
    "unknown effects": ("{value: 1, effects: none}", "bad-value", 26, None),
    "misspelt timeout": ("{value: 1, timout: 3s}", "unknown-field", 17, "did you mean timeout?"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_mistake(name):
    assert_mistake(*BROKEN[name])


def test_a_timeout_of_nothing_that_cannot_be_written():
    node = Node(Value(), {"value": Literal(1)}, timeout_s=0)
    made = Pipeline(Metadata("x"), {NodeId("a"): node}, {"b": Ref("a", "value")})
    assert [each.message for each in check(made)] == ["a timeout is more than nothing and at most 3600 s"]


def test_what_has_effects_is_run_whether_or_not_it_is_needed():
    nodes = """\
  a: {value: 1, effects: effectful}
  b: {map: {over: [1], nodes: {c: {value: 1, effects: effectful}, d: {value: 1}}}}
  e: {value: 1}
"""
    warnings = load(HEAD + nodes + ANSWER + TAIL).warnings
    assert [each.path for each in warnings if each.code == "unused-node"] == [
        ("nodes", "b", "map", "nodes", "d"),
        ("nodes", "e"),
    ]
