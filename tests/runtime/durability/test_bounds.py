"""What goes first when a run has much to keep."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.durability import bounds
from runtime.durability.bounds import Entry, Shelf, holders, thin
from runtime.durability.model import Checkpoint
from runtime.errors import TooMuchToKeep
from runtime.events import NodeDelta, NodeFinished, NodeStarted
from tests.runtime.durability.journals import FAILED, STARTED


def entry(path: str, size: int = 10, supersedes: tuple[str, ...] = (), **values: int) -> Entry:
    made = {digest: bytes(length) for digest, length in values.items()}
    return Entry(Checkpoint(path, None, supersedes=supersedes), bytes(size), made)


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("ask", []),
        ("search[3].each", ["search", "search[3]"]),
        ("plan+0", ["plan"]),
        ("a~2.b+0", ["a", "a~2", "a~2.b"]),
        ("a.0.b[2].c+x.y[1]", ["a", "a.0", "a.0.b", "a.0.b[2]", "a.0.b[2].c"]),
    ],
)
def test_what_a_path_is_inside_of(path: str, inside: list[str]) -> None:
    assert list(holders(path)) == inside


def test_events_are_thinned_step_by_step() -> None:
    done = NodeFinished("ask", 0.1, outputs={"text": "x"})
    inner = NodeStarted("search[3].each", "llm")
    delta = NodeDelta("ask", "x")
    plain = msgspec.structs.replace(done, outputs=msgspec.UNSET)
    everything = [STARTED, done, inner, delta, FAILED]
    expected = {
        0.0: everything,
        0.5: [STARTED, done, inner, None, FAILED],
        0.75: [STARTED, plain, inner, None, FAILED],
        0.9: [STARTED, plain, None, None, FAILED],
        1.0: [STARTED, None, None, None, FAILED],
    }
    assert {full: [thin(event, full) for event in everything] for full in expected} == expected


def test_what_is_inside_a_node_that_is_done_is_kept_while_there_is_room(monkeypatch) -> None:
    monkeypatch.setattr(bounds, "MAX_SUPERSEDED", 2)
    shelf = Shelf()
    assert shelf.add([entry("m[0].a"), entry("m[1].a"), entry("m[1].a+0"), entry("n[0].a")]).paths == []
    assert shelf.add([entry("m")]).paths == ["m[1].a+0"]  # its node was done before
    assert shelf.add([entry("m[1].a")]).paths == []  # it is needed again
    assert shelf.add([entry("m[2].a"), entry("n")]).paths == []
    assert len(shelf) == 6


def test_a_try_that_has_begun_is_not_done(monkeypatch) -> None:
    monkeypatch.setattr(bounds, "MAX_SUPERSEDED", 0)
    shelf = Shelf()
    assert shelf.add(
        [entry("a~2.b"), entry("a~2.b~3"), entry("a~2.b~3+0"), entry("a~2"), entry("a.b")]
    ).paths == [
        "a~2.b~3",
        "a~2.b~3+0",
    ]
    assert sorted(shelf.add([entry("a")]).paths) == ["a.b", "a~2", "a~2.b"]


def test_bytes_make_what_is_superseded_go_and_never_what_is_needed(monkeypatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CHECKPOINT_BYTES", 1_000)
    shelf = Shelf()
    shelf.add([entry("a[0].x", 400), entry("b", 90)])
    assert shelf.add([entry("a", 100)]).paths == ["a[0].x"]
    assert shelf.size == 190
    with pytest.raises(TooMuchToKeep, match="0 MiB together"):
        shelf.add([entry("c", 900)])
    assert (len(shelf), shelf.size) == (2, 190)


def test_equal_large_values_count_once(monkeypatch) -> None:
    monkeypatch.setattr(bounds, "MAX_CHECKPOINT_BYTES", 1_000)
    shelf = Shelf()
    for index in range(10):
        shelf.add([entry(f"n{index}", 1, v=400)])
    assert shelf.size == 410
    assert shelf.holds_value("v")
    dropped = [shelf.add([entry(f"n{index}", 1)]).values for index in range(10)]
    assert dropped == [[]] * 9 + [["v"]]
    assert shelf.size == 10


PATHS = st.sampled_from(["a", "a[0].x", "a[1].x", "a[1].x+0", "b", "b.c", "b.c.d", "b.c[0].e"])


@given(st.lists(st.tuples(PATHS, st.integers(1, 300), st.sampled_from(["", "v", "w"])), max_size=30))
def test_a_shelf_counts_what_it_keeps(puts: list[tuple[str, int, str]]) -> None:
    """Against a dict that is told what to drop."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bounds, "MAX_SUPERSEDED", 2)
        patched.setattr(bounds, "MAX_CHECKPOINT_BYTES", 1_500)
        shelf, kept = Shelf(), {}
        values: set[str] = set()
        for path, size, digest in puts:
            new = entry(path, size, **({digest: 200} if digest else {}))
            try:
                dropped = shelf.add([new])
            except TooMuchToKeep:
                return
            kept[path] = new
            values |= set(new.values)
            for each in dropped.paths:
                del kept[each]
            values -= set(dropped.values)
            needed = {digest for each in kept.values() for digest in each.values}
            assert values == needed
            assert len(shelf) == len(kept)
            assert shelf.size == sum(len(each.packed) for each in kept.values()) + 200 * len(needed)
