from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.system import RunningSystem, running


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
    with running(kind, tmp_path_factory.mktemp(kind)) as started:
        yield started
