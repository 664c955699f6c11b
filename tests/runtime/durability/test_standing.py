"""Who may take a run, and what the others are told."""

from __future__ import annotations

import pytest

from runtime.durability.standing import refusal, refused, state_after
from runtime.errors import LeaseLost, RunEnded, RunExists, RunHeld, UnknownRun
from runtime.events import NodeStarted
from tests.runtime.durability.journals import FAILED, FINISHED, STARTED, SUSPENDED


def test_the_last_event_says_what_the_run_is() -> None:
    events = [STARTED, NodeStarted("ask", "llm"), SUSPENDED, FAILED, FINISHED]
    expected = ["running", "running", "suspended", "failed", "succeeded"]
    assert [state_after(event) for event in events] == expected


@pytest.mark.parametrize(
    ("state", "held", "resumed", "why"),
    [
        ("running", True, False, "held"),
        ("running", True, True, "held"),
        ("running", False, False, None),
        ("running", False, True, None),
        ("failed", False, False, "failed"),
        ("failed", False, True, None),
        ("suspended", False, False, "suspended"),
        ("suspended", False, True, None),
        ("succeeded", False, True, "succeeded"),
    ],
)
def test_who_may_take_a_run(state, held, resumed, why) -> None:
    assert refusal(state, held=held, resumed=resumed) == why


@pytest.mark.parametrize(
    ("why", "error", "said"),
    [
        ("unknown", UnknownRun, "not durable"),
        ("held", RunHeld, "another runner"),
        ("succeeded", RunEnded, "fork it"),
        ("failed", RunEnded, "resumes it"),
        ("suspended", RunEnded, "waits for people"),
        ("lost", LeaseLost, "taken over"),
        ("exists", RunExists, "already"),
    ],
)
def test_whoever_may_not_is_told_why(why, error, said) -> None:
    with pytest.raises(error, match=f"run-1.*{said}|{said}.*run-1"):
        raise refused("run-1", why)
