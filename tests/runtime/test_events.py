"""Events on the wire, as JSON, and added up."""

import json

import msgspec
import pytest

from cluster.messages import Failure, Usage
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFailed,
    NodeFellBack,
    NodeFinished,
    NodeRetried,
    NodeSkipped,
    NodeStarted,
    PrefixRead,
    RunFailed,
    RunFinished,
    RunStarted,
    Tally,
    decode_events,
    encode_events,
    to_json,
)

EVENTS = [
    RunStarted("r", "g", "1.0.0", "abc"),
    NodeStarted("a", "llm"),
    NodeCalled("a", "m", 7),
    NodeDelta("a", "six cha"),
    NodeFinished("a", 0.5, Usage(7, 3), {"text": "x"}),
    NodeFinished("b", 0.5),
    NodeFailed("b", Failure("NodeError", "no")),
    RunFinished({"text": "x"}, Usage(7, 3), 1.5),
    RunFailed(Failure("NodeError", "no"), Usage(1), 0.5, "b"),
    NodeSkipped("c", "llm", "its condition does not hold"),
    NodeRetried("a", 2, "unavailable"),
    NodeFellBack("a", "model m", "error"),
    PrefixRead("a", "m", Usage(9, 1)),
]


def test_wire_round_trip():
    assert decode_events(encode_events(EVENTS)) == EVENTS


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_json_is_tagged_by_type(event):
    data = json.loads(to_json(event))
    name = type(event).__name__
    assert data["type"] == "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def test_outputs_that_are_left_out_are_not_there():
    assert "outputs" not in json.loads(to_json(EVENTS[5]))
    assert EVENTS[5].outputs is msgspec.UNSET


def test_tally_follows_a_run():
    tally = Tally()
    for event in EVENTS[:3]:
        tally.add(event)
    assert tally.usage == Usage(prompt_tokens=7)
    tally.add(EVENTS[3])
    assert tally.usage == Usage(prompt_tokens=7, completion_tokens=3)
    tally.add(EVENTS[4])
    assert tally.usage == Usage(7, 3)
    tally.add(NodeCalled("c", "m", 5))
    assert tally.usage == Usage(12, 3)
    tally.add(EVENTS[7])
    assert tally.usage == Usage(7, 3)


def test_tally_takes_a_failure_at_its_word():
    tally = Tally()
    tally.add(EVENTS[2])
    tally.add(EVENTS[8])
    assert tally.usage == Usage(1)


@pytest.mark.parametrize("again", [NodeRetried("a", 2, "timeout"), NodeFellBack("a", "value", "timeout")])
def test_tally_keeps_what_was_begun_inside_a_node_that_starts_over(again):
    tally = Tally()
    began = [NodeCalled("a[0].say", "m", 5), NodeDelta("a[0].say", "abc"), NodeCalled("ab", "m", 2)]
    for event in (*began, again, *began[:1], NodeFinished("a[0].say", 0.5, Usage(5, 4))):
        tally.add(event)
    # cut off: 5 and 1; beside it: 2; the second time: 5 and 4
    assert tally.usage == Usage(5 + 2 + 5, 1 + 4)
