"""The results used last, within a number of bytes."""

from runtime.cache.memory import ENTRY_BYTES, Recent


def room(results: int) -> int:
    """Bytes for so many results of 100 bytes."""
    return results * (100 + ENTRY_BYTES)


def test_what_was_used_longest_ago_goes_first():
    recent = Recent(room(2))
    recent.put(("t", "a"), b"a" * 100)
    recent.put(("t", "b"), b"b" * 100)
    recent.get(("t", "a"))
    recent.put(("t", "c"), b"c" * 100)
    assert recent.get(("t", "b")) is None
    assert recent.get(("t", "a")) == b"a" * 100
    assert recent.get(("t", "c")) == b"c" * 100


def test_a_result_takes_the_place_of_the_one_before():
    recent = Recent(room(1))
    for text in (b"a" * 100, b"b" * 100, b"c" * 100):
        recent.put(("t", "a"), text)
    assert recent.get(("t", "a")) == b"c" * 100
    assert len(recent) == 1


def test_what_is_too_large_for_all_the_room_is_not_kept():
    recent = Recent(room(1))
    recent.put(("t", "a"), b"a" * 2000)
    assert len(recent) == 0
    recent.put(("t", "b"), b"b" * 100)
    assert recent.get(("t", "b")) is not None


def test_tenants_share_nothing():
    recent = Recent()
    recent.put(("t", "a"), b"mine")
    assert recent.get(("u", "a")) is None
