from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.system import RunningSystem, running

LONG_TOKEN_S = 0.05
"""A long answer takes six seconds: time to cancel it, or to kill what makes it, on a slow machine too."""


@pytest.fixture(
    scope="session",
    params=[pytest.param("fake"), pytest.param("quickstart", marks=pytest.mark.engine)],
)
def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningSystem]:
    """The whole system over HTTP: every scenario runs on scripted engines, then on the real ones.

    Named by the kind of its config. One system runs at a time; its end is checked as well.
    """
    kind = request.param.removesuffix("-once")
    changes = {"runner": {"replicas": 2}} if kind == "fake" else {}
    with running(kind, tmp_path_factory.mktemp(kind), token_s=LONG_TOKEN_S, **changes) as started:
        yield started
