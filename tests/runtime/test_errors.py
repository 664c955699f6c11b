"""Errors of a run survive pickling and become data."""

import pickle

import pytest

from cluster.errors import Overloaded
from cluster.messages import Failure
from runtime.errors import (
    BudgetExceeded,
    InputProblem,
    InvalidInputs,
    NodeError,
    RunEnded,
    RunError,
    TooMuchToKeep,
    UnknownGraph,
    from_failure,
)


@pytest.mark.parametrize(
    "error",
    [
        RunError("wrong", param="x"),
        UnknownGraph("no graph", param="graph"),
        NodeError("no text"),
        RunEnded("the run has succeeded"),
        TooMuchToKeep("5 MB"),
        BudgetExceeded("9 tokens"),
        InvalidInputs([InputProblem("a", "is required"), InputProblem("b", "is no text")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.param) == (str(error), error.param)
    assert again.as_failure() == Failure(type(error).__name__, error.message, error.param)


def test_invalid_inputs_name_every_field():
    error = InvalidInputs([InputProblem("a", "is required"), InputProblem("b", "is no text")])
    assert error.message == "a: is required; b: is no text"
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


@pytest.mark.parametrize(
    "error",
    [
        RunError("wrong", param="x"),
        RunEnded("the run has succeeded"),
        Overloaded("full", retry_after_s=2.0),
        InvalidInputs([InputProblem("a", "is required"), InputProblem("b", "is no text")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_becomes_the_error_that_it_was(error):
    again = from_failure(error.as_failure())
    assert type(again) is type(error)
    assert again.as_failure() == error.as_failure()
