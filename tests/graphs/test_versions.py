"""The order of versions, and what a reference means."""

import pytest

from graphs.versions import by_reference, found_in, newest, precedence

# Section 11 of Semantic Versioning 2.0.0 gives the second line.
ORDER = [
    "draft",
    *("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"),
    *("1.0.0-rc.1", "2.0.0-rc.1", "0.9", "1.0.0", "1.2.0", "1.10.0", "1.10.0.1", "v2"),
]


def test_order():
    assert sorted({*ORDER}, key=precedence) == ORDER


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (["1.9.0", "1.10.0"], "1.10.0"),
        (["1.0.0", "2.0.0-rc.1"], "1.0.0"),
        (["2.0.0-rc.2", "2.0.0-rc.10"], "2.0.0-rc.10"),
        (["draft", "0.0.1-x"], "0.0.1-x"),
        (["1.0.0+b", "1.0.0+a"], "1.0.0+b"),
    ],
)
def test_newest(versions, expected):
    assert newest(versions) == expected


def test_references():
    found = by_reference({("a", "1.0"): 1, ("b", "2.0"): 2, ("a", "1.1"): 3})
    assert found == {"a": 3, "a@1.1": 3, "a@1.0": 1, "b": 2}
    version_of = {1: "1.0", 2: "2.0", 3: "1.1"}.__getitem__
    assert found_in(found, "b@2.0", version_of) == 2
    assert found_in(found, "a@1.0", version_of) == 1
    for unknown in ("b@2.1", "a@2.0", "c", "c@1.0", "b@", "@2.0"):
        assert found_in(found, unknown, version_of) is None
