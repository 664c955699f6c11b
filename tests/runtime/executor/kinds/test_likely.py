from __future__ import annotations

from runtime.compiler.estimates import TYPICAL_SHARE
from runtime.executor.kinds.likely import Likely


def test_it_is_estimated_before_anything_was_answered() -> None:
    assert Likely().tokens(100) == TYPICAL_SHARE * 100
    assert Likely().tokens(1) == 1


def test_it_follows_what_answers_have_used() -> None:
    likely = Likely()
    for _ in range(40):
        likely.learn(20, 200)
    assert 20 <= likely.tokens(200) <= 22
    for _ in range(40):
        likely.learn(500, 200)
    assert 190 <= likely.tokens(200) <= 200
