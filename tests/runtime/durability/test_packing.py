"""What is kept comes back as it was."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.messages import Message
from graphs.documents import Document
from runtime.durability.model import Checkpoint
from runtime.durability.packing import LARGE_BYTES, pack, references, unpack

DOCUMENT = Document("1", "A cat sleeps.", "docs/a.md", score=0.5)
TURN = Message("user", "why")
LARGE = Document("2", "x" * LARGE_BYTES)


@pytest.mark.parametrize(
    "outputs",
    [
        {"text": "it is", "n": 3, "none": None, "vector": [0.5, 1.5]},
        {"documents": [DOCUMENT], "first": DOCUMENT, "inside": {"turns": [TURN]}},
        {"documents": [LARGE, DOCUMENT], "text": "it is"},
        [DOCUMENT],
        [Document("1", 7)],  # type: ignore[arg-type]  # as a function may give it
        None,
    ],
)
def test_values_come_back_as_what_they_were(outputs: Any) -> None:
    entry = pack(Checkpoint("a", outputs))
    assert entry.checkpoint.outputs == outputs
    assert list(entry.values) == references(entry.packed)
    kept = unpack(entry.packed, entry.values)
    assert kept is not None
    assert kept.outputs == outputs
    assert str(kept.outputs) == str(outputs)  # as a template prints it


def test_what_is_large_is_kept_apart_once() -> None:
    entries = [pack(Checkpoint(path, {"documents": [LARGE]})) for path in "ab"]
    (digest,) = {key for entry in entries for key in entry.values}
    assert all(references(entry.packed) == [digest] for entry in entries)
    assert unpack(entries[0].packed, {}) is None
