"""Problems as people and processes see them."""

import pickle

from graphs.errors import PipelineError, Position, Problem, nearest


def test_problem_text():
    problem = Problem("unknown-node", "there is no node b", ("nodes", "a"), hint="did you mean a?")
    assert str(problem) == "nodes.a: error: there is no node b (did you mean a?)"
    placed = Problem("x", "wrong", position=Position(3, 4), file="f.yaml", severity="warning")
    assert str(placed) == "f.yaml:3:4: warning: wrong"


def test_error_survives_pickling_with_its_problems():
    error = PipelineError([Problem("x", "wrong", ("a", 1)), Problem("y", "bad")])
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems
    assert str(again) == str(error) == "a.1: error: wrong\nerror: bad"


def test_nearest():
    assert nearest("qestion", ["question", "top_k"]) == "did you mean question?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("zzz", []) is None
    assert nearest("zzz", [f"n{i}" for i in range(9)]) is None
