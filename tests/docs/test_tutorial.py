"""The tutorial is true: its graphs load, compile and run, its mistakes are found, its Python is its YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import graphs
from graphs.errors import PipelineError
from graphs.loader import load
from graphs.pipeline import Pipeline
from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from serve_apps.cli.main import app
from tests.runtime.parts import Shelf, embedder, finished, generator, request

PAGE = (Path(graphs.__file__).parent.parent / "docs" / "tutorial.md").read_text()
LONG = "How do I create an API key?"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


STEPS = [text for text in blocks("yaml") if "kind: Pipeline" in text]


def in_python() -> dict[str, Any]:
    """The names after all of its Python."""
    names: dict[str, Any] = {"__name__": "tutorial"}
    for text in blocks("python"):
        exec(compile(text, "tutorial.md", "exec"), names)
    return names


def test_the_python_of_the_manual_makes_pipelines():
    names: dict[str, Any] = {"__name__": "manual"}
    page = (Path(graphs.__file__).parent.parent / "docs" / "graphs.md").read_text()
    section = page[page.index("## How do I write a graph in Python?") :]
    first_yaml = load(re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]).pipeline
    for text in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        if "runtime.local" not in text:  # those are run by `test_manual`
            exec(compile(text, "graphs.md", "exec"), names)
    assert names["ask"].content_hash() == first_yaml.content_hash()
    (looped,) = names["polish"].nodes["map"].bodies["body"].nodes.values()
    assert looped.bodies["body"].until == "llm2.text == 'yes'"


async def run(pipeline: Pipeline, question: str) -> dict[str, Any]:
    models = {"smollm2": generator("smollm2"), "minilm": embedder("minilm")}
    runner = Runner([compile_pipeline(pipeline)], Resources(models, {"manual": Shelf()}))
    return (await finished(runner, request(pipeline, inputs={"question": question}))).outputs


@pytest.mark.parametrize("text", STEPS, ids=lambda text: re.search(r"version: ([\d.]+)", text)[1])
async def test_every_step_runs(text):
    loaded = load(text)
    assert loaded.warnings == []
    outputs = await run(loaded.pipeline, LONG)
    assert outputs["text"]
    assert set(outputs) == set(loaded.pipeline.outputs)


def test_the_commands_work_on_every_step(tmp_path):
    lines = "\n".join(blocks("sh")).splitlines()
    commands = [line.split()[1:] for line in lines if "clustergraph" in line and "--config" not in line]
    assert [command[0] for command in commands] == ["validate", "explain", "draw"]
    for text in STEPS:
        (tmp_path / "assistant.yaml").write_text(text)
        for command in commands:
            paths = [str(tmp_path / word) if word.startswith("assistant.") else word for word in command]
            result = CliRunner().invoke(app, paths)
            assert result.exit_code == 0, result.output
        assert "<svg" in (tmp_path / "assistant.svg").read_text()


async def test_every_passage_is_noted():
    (text,) = [text for text in STEPS if "version: 0.4.0" in text]
    outputs = await run(load(text).pipeline, LONG)
    assert len(outputs["notes"]) == 3


def test_the_mistakes_are_found():
    (broken,) = [text for text in blocks("yaml") if "mistakes" in text]
    text = STEPS[0][: STEPS[0].index("nodes:")] + broken[broken.index("nodes:") :] + "outputs: {}\n"
    with pytest.raises(PipelineError) as refused:
        load(text)
    told = str(refused.value)
    assert "did you mean prompt?" in told
    assert "there is no node input" in told
    assert "did you mean inputs?" in told


@pytest.mark.parametrize("question", ["hello", LONG])
async def test_the_python_runs(question):
    assistant = in_python()["assistant"]
    assert isinstance(assistant, Pipeline)
    assert (await run(assistant, question))["text"]


def test_the_python_makes_the_yaml_that_it_says():
    assert "branch:" in in_python()["text"]
