"""One system for all rows: two replicas of everything that may die, on scripted engines.

Rows that are repeated on the real engine ask for the system "vllm".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from tests.chaos.cluster import Cluster
from tests.e2e.system import AT_LENGTH, REPOSITORY, RunningSystem, running
from tests.serve_apps.gateway.oidc.provider import AUDIENCE

GRAPHS = Path(__file__).parent / "graphs"
ROW_TIMEOUT_S = 3600
PROVIDER_PORT = 8977
"""Where one row has an identity provider serve; nobody asks it in the others."""
PROVIDER = {
    "audience": AUDIENCE,
    "allow_http": True,
    "organisation": {"claim": "org"},
    "ask_every": 0.001,
}
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


def started(kind: str, folder: Path) -> AbstractContextManager[RunningSystem]:
    """The system, with its data in `folder`; on scripted engines, or on the real one."""
    twice = {"replicas": 2}
    graphs = [str(file) for file in sorted(GRAPHS.glob("*.yaml"))]
    if kind == "vllm":
        real = yaml.safe_load((REPOSITORY / "serve_apps" / "configs" / "quickstart.yaml").read_text())
        solo = {**real["models"][0], "name": "solo"}
        bare: dict[str, object] = {"tasks": {}, "indexes": {}, "prompts": []}
        return running(
            "quickstart", folder, gateway=twice, runner=twice, models=[solo], graphs=graphs, **bare
        )
    graphs.append(str(REPOSITORY / "graphs" / "library" / "support-rag.yaml"))
    people = {**PROVIDER, "issuer": f"http://127.0.0.1:{PROVIDER_PORT}"}
    changes = {"models": MODELS, "graphs": graphs, "tasks": {}, "auth": {"oidc": [people]}}
    return running("fake", folder, gateway=twice, runner=twice, **changes)


@pytest.fixture(scope="session", params=["fake"])
def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningSystem]:
    with started(request.param, tmp_path_factory.mktemp("chaos")) as made:
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
