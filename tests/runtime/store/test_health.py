"""When a store that is out is asked again."""

from __future__ import annotations

import pytest

from runtime.store.health import FIRST_WAIT_S, LONGEST_WAIT_S, Health


def test_a_store_that_answers_is_always_asked() -> None:
    health = Health()
    assert not health.answered()
    assert all(health.may_ask(now) for now in (0.0, 0.0, 1.0))


def test_one_asks_for_all_and_less_and_less_often() -> None:
    health = Health()
    assert [health.failed(10.0), health.failed(10.0)] == [True, False]
    asked = [step / 1000 for step in range(10_000, 20_000) if health.may_ask(step / 1000)]
    gaps = [after - before for before, after in zip([10.0, *asked], asked, strict=False)]
    assert gaps[0] == pytest.approx(FIRST_WAIT_S, abs=0.002)
    assert gaps == sorted(gaps) or max(gaps) - LONGEST_WAIT_S < 0.002
    assert max(gaps) == pytest.approx(LONGEST_WAIT_S, abs=0.002)


def test_an_answer_ends_it_at_once() -> None:
    health = Health()
    health.failed(0.0)
    assert not health.may_ask(0.01)
    assert [health.answered(), health.answered()] == [True, False]
    assert health.may_ask(0.01)
    assert health.failed(5.0)
    assert not health.may_ask(5.0 + FIRST_WAIT_S / 2)
