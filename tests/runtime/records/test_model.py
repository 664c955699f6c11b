"""What a record holds, and what it says later."""

import msgspec
import pytest

from runtime.records.model import (
    LOST_AFTER_S,
    MAX_VALUE_BYTES,
    MAX_VALUES_BYTES,
    Kept,
    NodeRecord,
    RunFault,
    RunRecord,
    RunSummary,
    as_of,
    keep,
)

RUNNING = RunRecord("run-1", "acme", "rag", "1", "hash", "running", started=1_000.0, deadline=1_030.0)


def test_small_values_are_kept_and_large_ones_measured():
    kept = keep({"question": "why", "text": "x" * MAX_VALUE_BYTES, "documents": [1, 2]})
    assert kept == Kept({"question": "why", "documents": [1, 2]}, {"text": MAX_VALUE_BYTES + 3})


def test_many_small_values_are_bounded_together():
    size = MAX_VALUE_BYTES - 3
    kept = keep({f"v{index:02}": "x" * size for index in range(20)})
    assert len(kept.values) == MAX_VALUES_BYTES // MAX_VALUE_BYTES
    assert list(kept.values) + list(kept.left_out) == [f"v{index:02}" for index in range(20)]


@pytest.mark.parametrize("late", [-0.1, 0.0])
def test_a_run_that_never_ended_is_lost_past_its_deadline(late):
    shown = as_of(RUNNING, RUNNING.deadline + LOST_AFTER_S + late)
    if late < 0:
        assert shown == RUNNING
    else:
        assert (shown.status, shown.error) == (
            "failed",
            RunFault("RunLost", "nothing was heard of the run after it began"),
        )


def test_an_ended_run_stays_as_it_is():
    ended = msgspec.structs.replace(RUNNING, status="succeeded")
    assert as_of(ended, 1e12) is ended


def test_a_summary_reads_from_a_whole_record():
    node = NodeRecord("a", "llm", "succeeded", 0.1, 0.2)
    packed = msgspec.msgpack.encode(msgspec.structs.replace(RUNNING, nodes=[node]))
    assert msgspec.msgpack.decode(packed, type=RunSummary).run_id == "run-1"
    assert msgspec.msgpack.decode(packed, type=RunRecord).nodes == [node]
