from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from cluster.garbage import YOUNG_OBJECTS, collect_less_often


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def test_only_young_collections_become_rarer(thresholds: tuple[int, int, int]) -> None:
    collect_less_often()
    assert gc.get_threshold() == (YOUNG_OBJECTS, *thresholds[1:])
    assert gc.isenabled()
