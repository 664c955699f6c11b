"""The context document as JSON."""

from __future__ import annotations

import msgspec

from cluster.messages import Message
from runtime.context.model import SCHEMA_VERSION, Context, Details


def test_the_names_outside_are_those_of_the_schema() -> None:
    assert msgspec.json.decode(
        msgspec.json.encode(Context("c-1", 2, session_history=[Message("user", "x")]))
    ) == {
        "contextId": "c-1",
        "version": 2,
        "schemaVersion": SCHEMA_VERSION,
        "sessionHistory": [{"role": "user", "content": "x"}],
        "userProfile": {},
        "environmentalVariables": {},
        "toolDefinitions": [],
        "intermediateResults": {},
        "systemInstructions": None,
    }


def test_a_field_of_a_later_schema_is_ignored() -> None:
    later = msgspec.json.encode({"contextId": "c", "mood": "new", "systemInstructions": "x"})
    assert msgspec.json.decode(later, type=Context) == Context("c", system_instructions="x")


def test_the_details_are_every_field_but_id_version_and_history() -> None:
    others = {"context_id", "version", "session_history"}
    assert set(Context.__struct_fields__) - set(Details.__struct_fields__) == others
    assert Context("c", user_profile={"a": 1}).details() == Details(user_profile={"a": 1})
