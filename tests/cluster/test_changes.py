from __future__ import annotations

import pytest

from cluster.changes import Change, changes
from cluster.live import Deployed

RUNS = Deployed("m", 2, "v1", "{}", nodes=("a",), status="HEALTHY")


@pytest.mark.parametrize(
    ("wanted", "change"),
    [
        (Deployed("m", 2, "v1", "{}"), Change("m", "unchanged", "2 replicas")),
        (Deployed("m", 1, "v1", "{}"), Change("m", "scaled", "2 to 1 replica")),
        (Deployed("m", 1, "v2", "{}"), Change("m", "restarted", "its config is another")),
        (Deployed("m", 2, "v1", "x"), Change("m", "restarted", "it books other resources or nodes")),
        (Deployed("m", 2, None, "{}"), Change("m", "restarted", "every deployment replaces it")),
    ],
)
def test_what_becomes_of_a_deployment(wanted: Deployed, change: Change) -> None:
    assert changes([RUNS], [wanted]) == (change,)


def test_what_comes_and_what_goes() -> None:
    assert changes([RUNS], [Deployed("a", 1, "v", "{}")]) == (
        Change("a", "added", "1 replica"),
        Change("m", "removed"),
    )
