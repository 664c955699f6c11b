"""What is known of conditions before all of it is."""

import pytest

from graphs.bindings import Ref
from graphs.conditions import condition
from runtime.executor.premises import Premise, may_come
from runtime.executor.slots import ABSENT, PENDING, Slots
from runtime.executor.streams import Stream

SLOTS = Slots({Ref("a", "x"): 0, Ref("b", "x"): 1}, frozenset({Ref("a", "x")}))
PREMISES = [
    Premise((0,), SLOTS.test(condition("a.x == 1", {})), wanted=False),
    Premise((1,), SLOTS.test(condition("b.x > 0", {})), wanted=True),
]
"""Of a second case: the first does not apply, and its own condition holds."""


@pytest.mark.parametrize(
    ("a", "b", "possible"),
    [
        (PENDING, PENDING, True),
        (1, PENDING, False),
        (2, PENDING, True),
        (ABSENT, PENDING, True),
        (PENDING, 0, False),
        (PENDING, 3, True),
        (2, 3, True),
        (2, 0, False),
        (2, "text", False),  # the branch will say what is wrong, if it comes to that
        (2, Stream(), True),
    ],
)
def test_only_what_is_known_speaks_against_a_case(a, b, possible):
    assert may_come(PREMISES, [a, b]) is possible


def test_without_conditions_a_case_may_always_be_chosen():
    assert may_come((), []) is True
