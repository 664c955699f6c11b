"""Whatever is done to a log by somebody without its secret is found, at the first entry it was done to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serve_apps.audit.chain import ChainKey, check
from serve_apps.audit.model import Anchor, Head, Kept

SECRET = bytes(range(32))
KEY = ChainKey(SECRET, "acme")
LENGTH = 12


class Log(NamedTuple):
    entries: tuple[Kept, ...]
    head: Head | None


def written(length: int, key: ChainKey = KEY, text: bytes = b"entry") -> Log:
    entries, mac = [], key.start
    for number in range(1, length + 1):
        packed = b"%b %d" % (text, number)
        mac = key.link(mac, number, packed)
        entries.append(Kept(b"%d-0" % number, packed, mac))
    head = Head(length, mac, key.seal(length, mac)) if length else None
    return Log(tuple(entries), head)


LOG = written(LENGTH)
OTHERS = written(LENGTH, ChainKey(SECRET, "other"))
FORGED = written(LENGTH, ChainKey(bytes(32), "acme"))
REWRITTEN = written(LENGTH, text=b"other")
"""By us, in the place of `LOG`: what a store that was set back would come to."""


def anchor_at(log: Log, number: int) -> Anchor:
    return Anchor("acme", number, log.entries[number - 1].mac.hex())


def first_difference(log: Log) -> int:
    """Number of the first entry that is another than in `LOG`."""
    for number, (there, was) in enumerate(zip(log.entries, LOG.entries, strict=False), 1):
        if there != was:
            return number
    return min(len(log.entries), LENGTH) + 1


def test_a_log_as_it_was_written_is_sound():
    for length in range(4):
        log = written(length)
        verdict = check(KEY, log.entries, log.head)
        assert verdict.sound
        assert verdict.entries == length
        assert verdict.anchor == (anchor_at(log, length) if length else None)


def test_anchors_of_any_time_hold():
    anchors = [anchor_at(LOG, number) for number in (1, 5, LENGTH)]
    assert check(KEY, LOG.entries, LOG.head, anchors).sound


places = st.integers(0, LENGTH - 1)


def edited(data: st.DataObject, entries: list[Kept]) -> None:
    index = data.draw(places) % len(entries)
    kept = entries[index]
    field = data.draw(st.sampled_from(Kept._fields))
    value = bytearray(getattr(kept, field))
    at = data.draw(st.integers(0, max(0, len(value) - 1)))
    if value:
        value[at] ^= data.draw(st.integers(1, 255))
    entries[index] = kept._replace(**{field: bytes(value)})


def cut_or_grown(data: st.DataObject, entries: list[Kept]) -> None:
    index = data.draw(places) % len(entries)
    kept = entries[index]
    field = data.draw(st.sampled_from(("packed", "mac")))
    value = getattr(kept, field)
    to = data.draw(st.sampled_from((value[:-1], value + b"\0", b"", value * 2)))
    entries[index] = kept._replace(**{field: to})


def swapped(data: st.DataObject, entries: list[Kept]) -> None:
    """What is at two places; the numbers of the places stay, as a store keeps them in order."""
    one, two = data.draw(places) % len(entries), data.draw(places) % len(entries)
    first, second = entries[one], entries[two]
    entries[one], entries[two] = second._replace(place=first.place), first._replace(place=second.place)


def moved(data: st.DataObject, entries: list[Kept]) -> None:
    entries.insert(data.draw(places), entries.pop(data.draw(places) % len(entries)))


def deleted(data: st.DataObject, entries: list[Kept]) -> None:
    first = data.draw(places) % len(entries)
    del entries[first : first + data.draw(st.integers(1, 3))]


def deleted_and_closed(data: st.DataObject, entries: list[Kept]) -> None:
    """The rest moved up, so that no number is missing."""
    deleted(data, entries)
    entries[:] = [kept._replace(place=b"%d-0" % number) for number, kept in enumerate(entries, 1)]


def truncated(data: st.DataObject, entries: list[Kept]) -> None:
    del entries[data.draw(places) :]


def inserted(data: st.DataObject, entries: list[Kept]) -> None:
    source = data.draw(st.sampled_from((LOG, OTHERS, FORGED)))
    kept = source.entries[data.draw(places)]
    index = data.draw(st.integers(0, len(entries)))
    place = data.draw(st.sampled_from((kept.place, b"%d-0" % (index + 1), b"%d-1" % index)))
    entries.insert(index, kept._replace(place=place))


def replaced(data: st.DataObject, entries: list[Kept]) -> None:
    """By entries of another log, or by forged ones that fit each other."""
    source = data.draw(st.sampled_from((OTHERS, FORGED)))
    first = data.draw(places)
    entries[first:] = source.entries[first:]


TAMPERINGS: list[Callable[[st.DataObject, list[Kept]], None]] = [
    edited,
    cut_or_grown,
    swapped,
    moved,
    deleted,
    deleted_and_closed,
    truncated,
    inserted,
    replaced,
]


@settings(max_examples=400, deadline=None)
@given(st.data(), st.lists(st.sampled_from(TAMPERINGS), min_size=1, max_size=3))
def test_whatever_is_done_to_the_entries_is_found_where_it_was_done(data, tamperings):
    entries = list(LOG.entries)
    for tamper in tamperings:
        if entries:
            tamper(data, entries)
    log = Log(tuple(entries), LOG.head)
    assume(log.entries != LOG.entries)
    verdict = check(KEY, log.entries, log.head)
    assert verdict.first_bad == first_difference(log)
    assert verdict.entries == verdict.first_bad - 1
    assert verdict.reason


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_is_done_to_the_head_is_found(data):
    assert LOG.head is not None
    old = written(data.draw(st.integers(1, LENGTH - 1))).head
    flipped = bytearray(LOG.head.seal)
    flipped[data.draw(st.integers(0, 31))] ^= 1
    head = data.draw(
        st.sampled_from(
            [
                *(None, old, OTHERS.head, FORGED.head, Head(0, b"", b"")),
                LOG.head._replace(seal=bytes(flipped)),
                LOG.head._replace(sequence=data.draw(places)),
                LOG.head._replace(mac=LOG.entries[0].mac),
            ]
        )
    )
    assert not check(KEY, LOG.entries, head).sound


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_log_set_back_with_its_head_is_found_by_an_anchor(data):
    length = data.draw(st.integers(0, LENGTH - 1))
    back = written(length)
    anchor = anchor_at(LOG, data.draw(st.integers(length + 1, LENGTH)))
    assert check(KEY, back.entries, back.head).sound
    verdict = check(KEY, back.entries, back.head, [anchor])
    assert verdict.first_bad == length + 1


@pytest.mark.parametrize("number", [1, 7, LENGTH])
def test_a_log_set_back_and_written_again_is_found_by_an_anchor(number):
    assert check(KEY, REWRITTEN.entries, REWRITTEN.head).sound
    verdict = check(KEY, REWRITTEN.entries, REWRITTEN.head, [anchor_at(LOG, number)])
    assert verdict.first_bad == number
    assert "anchor" in verdict.reason


def test_a_digest_tells_only_whether_a_value_is_the_same():
    value = {"name": "ci", "models": ["a"]}
    assert KEY.digest(value) == KEY.digest({"models": ["a"], "name": "ci"})
    assert KEY.digest(value) != KEY.digest({**value, "name": "cd"})
    assert KEY.digest(value) != ChainKey(SECRET, "other").digest(value)
    assert KEY.digest(value) != ChainKey(bytes(32), "acme").digest(value)
