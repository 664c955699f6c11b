"""A LoRA adapter is deployed onto a running model, called, limited and billed as a model of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import yaml

from tests.e2e.system import RunningSystem
from tests.e2e.test_redeploy import _deploy
from tests.e2e.test_usage import reported, state

LEGAL = "smollm2-legal"


@pytest.fixture
def adapter(system: RunningSystem) -> Iterator[str]:
    """An adapter of the system's model; at the end it is gone again."""
    config = yaml.safe_load(system.config.read_text())
    config["models"].append({"name": LEGAL, "engine": "lora", "base": "smollm2", "source": "org/legal"})
    file: Path = system.config.with_name("with-adapter.yaml")
    file.write_text(yaml.safe_dump(config))
    deployed = _deploy(file)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    yield LEGAL
    assert _deploy(system.config).returncode == 0


@pytest.mark.parametrize("system", ["fake"], indirect=True)
def test_an_adapter_runs_on_the_replicas_that_are_there(system: RunningSystem, adapter: str) -> None:
    question = [{"role": "user", "content": "What does the contract say?"}]
    key, _ = system.key(models=[adapter])
    client = system.client(key)
    assert [model.id for model in client.models.list()] == [adapter]
    assert client.models.retrieve(adapter).parent == "smollm2"
    answer = client.chat.completions.create(model=adapter, messages=question, max_tokens=5)
    assert answer.model == adapter
    with pytest.raises(openai.PermissionDeniedError, match="may not use 'smollm2'"):
        client.chat.completions.create(model="smollm2", messages=question, max_tokens=5)
    assert state(system)["adapters"] == [adapter]
    rows = reported(system, key, requests=1)
    assert rows[adapter].output_tokens == 5
    assert "smollm2" not in rows
