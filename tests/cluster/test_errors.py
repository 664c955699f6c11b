from __future__ import annotations

import pickle

import pytest

from cluster import errors
from cluster.errors import ClusterError, from_failure
from cluster.messages import Failure, decode_events, encode

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClusterError)]


def test_every_kind_is_in_the_tree_at_the_top() -> None:
    for kind in KINDS:
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_pickling(kind: type[ClusterError]) -> None:
    error = kind("what happened", param="field", retry_after_s=2.5)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.param, copy.retry_after_s) == ("what happened", "field", 2.5)
    assert str(copy) == "what happened"


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_crosses_a_process_as_data(kind: type[ClusterError]) -> None:
    error = kind("what happened", param="field", retry_after_s=2.5)
    [failure] = decode_events(encode([error.as_failure()]))
    assert isinstance(failure, Failure)
    copy = from_failure(failure)
    assert type(copy) is kind
    assert (copy.message, copy.param, copy.retry_after_s) == ("what happened", "field", 2.5)


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "_rebuild", ""])
def test_an_unknown_kind_becomes_a_plain_error(name: str) -> None:
    assert type(from_failure(Failure(name, "who knows"))) is ClusterError
