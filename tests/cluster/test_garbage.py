from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from cluster.garbage import YOUNG_OBJECTS, spare_what_stays


class Node:
    """In a cycle with itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
def test_what_exists_is_spared_and_what_comes_is_still_collected() -> None:
    rubbish, kept = Node(), Node()
    gone = weakref.ref(rubbish)
    del rubbish
    spare_what_stays()
    assert gone() is None
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[0] == YOUNG_OBJECTS
    later = weakref.ref(Node())
    gc.collect()
    assert later() is None
    assert kept.me is kept
