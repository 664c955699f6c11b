"""One system for all rows: two replicas of everything that may die, on scripted engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster
from tests.e2e.system import AT_LENGTH, REPOSITORY, RunningSystem, running

GRAPHS = Path(__file__).parent / "graphs"
ROW_TIMEOUT_S = 3600
MODELS = [
    {
        "name": "smollm2",
        "engine": "fake",
        "max_context": 2048,
        "replicas": 2,
        "max_ongoing_requests": 8,
        "script": {
            "first_token_s": 0.05,
            "token_s": 0.01,
            "rules": [{"contains": "capital of France", "reply": "The capital of France is Paris."}],
        },
    },
    {
        "name": "solo",
        "engine": "fake",
        "max_context": 2048,
        "script": {"token_s": 0.02, "rules": [{"contains": AT_LENGTH, "reply": "so " * 1500}]},
    },
    {"name": "minilm", "engine": "fake", "task": "embed", "max_context": 512, "replicas": 2},
]


def started(folder: Path) -> AbstractContextManager[RunningSystem]:
    """The system, with its data in `folder`."""
    graphs = [str(REPOSITORY / "graphs" / "library" / "support-rag.yaml")]
    graphs += [str(file) for file in sorted(GRAPHS.glob("*.yaml"))]
    twice = {"replicas": 2}
    return running("fake", folder, models=MODELS, graphs=graphs, tasks={}, gateway=twice, runner=twice)


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    with started(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.fixture(scope="session")
def cluster(system: RunningSystem) -> Iterator[Cluster]:
    seen = Cluster(system)
    yield seen
    seen.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "chaos" in item.path.parts:
            item.add_marker(pytest.mark.timeout(ROW_TIMEOUT_S))
