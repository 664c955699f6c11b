"""Calls that go on, by model."""

from runtime.cache.load import Load


def test_calls_are_counted_while_they_last():
    load = Load()
    load.begun("m")
    load.begun("m")
    load.begun("n")
    load.ended("m")
    assert (load.of("m"), load.of("n"), load.of("other")) == (1, 1, 0)
    load.ended("m")
    assert load.of("m") == 0
