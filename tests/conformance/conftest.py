"""Each subject in turn, started once. The whole suite runs on one event loop, to which they belong.

A test that asks for `subject` runs with every one, for `generator` or `embedder` with those that are one; for
`only_generator` or `only_embedder` with those that are nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.conformance.subjects import CASES, Case, Subject

CONCERNS: dict[str, Callable[[Case], bool]] = {
    "subject": lambda _: True,
    "generator": lambda case: case.generates,
    "embedder": lambda case: case.embeds,
    "only_generator": lambda case: case.generates and not case.embeds,
    "only_embedder": lambda case: case.embeds and not case.generates,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = [concerns for name, concerns in CONCERNS.items() if name in metafunc.fixturenames]
    if asked:
        cases = [
            pytest.param(name, marks=case.marks)
            for name, case in CASES.items()
            if all(concerns(case) for concerns in asked)
        ]
        metafunc.parametrize("subject", cases, indirect=True, scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Subject]:
    async with CASES[request.param].start(tmp_path_factory.mktemp("data")) as subject:
        yield subject


@pytest.fixture
def generator(subject: Subject) -> Subject:
    return subject


@pytest.fixture
def embedder(subject: Subject) -> Subject:
    return subject


@pytest.fixture
def only_generator(subject: Subject) -> Subject:
    return subject


@pytest.fixture
def only_embedder(subject: Subject) -> Subject:
    return subject
