from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.errors import ConfigError
from serve_apps.manifests.bundle import MAX_BYTES, bundle
from serve_apps.settings import load_settings

GRAPH = "kind: Pipeline\n"
CONFIG = """
models: [{name: tiny, engine: fake}, {name: far, engine: vllm, source: org/model, loras: {}}]
graphs: [../graphs/rag.yaml, ../other/rag.yaml, /image/graphs/own.yaml]
prompts: [prompts]
indexes: {manual: {model: tiny, corpus: [docs, ../extra.md, /image/docs]}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config in a folder of its own, and the files that it names, inside that and beside it."""
    files = {
        "conf/deploy.yaml": CONFIG,
        "graphs/rag.yaml": GRAPH + "# one",
        "other/rag.yaml": GRAPH + "# two",
        "conf/prompts/a.yaml": "a: é",
        "conf/prompts/notes.txt": "no prompt",
        "conf/docs/index.md": "# Hello",
        "conf/docs/deep/more.md": "# More",
        "conf/docs/picture.svg": "no text of the corpus",
        "extra.md": "# Extra",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "conf" / "deploy.yaml"


def test_all_files_are_carried_and_the_config_names_them_there(config: Path) -> None:
    files = bundle(config, "/data")
    assert files.keys() == {
        "deploy.yaml",
        "graphs/0/rag.yaml",
        "graphs/1/rag.yaml",
        "prompts/0/a.yaml",
        "corpus/manual/0/index.md",
        "corpus/manual/0/deep/more.md",
        "corpus/manual/1/extra.md",
    }
    assert files["graphs/1/rag.yaml"] == GRAPH + "# two"
    assert files["prompts/0/a.yaml"] == "a: é"
    told = yaml.safe_load(files["deploy.yaml"])
    assert told["data_dir"] == "/data"
    assert told["graphs"] == ["graphs/0/rag.yaml", "graphs/1/rag.yaml", "/image/graphs/own.yaml"]
    assert told["prompts"] == ["prompts/0"]
    assert told["indexes"]["manual"]["corpus"] == [
        "corpus/manual/0",
        "corpus/manual/1/extra.md",
        "/image/docs",
    ]


def test_unpacked_it_is_a_config_that_loads(config: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    for name, text in bundle(config, "/data").items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(text)
    settings = load_settings(there / "deploy.yaml")
    assert settings.data_dir == Path("/data")
    assert settings.graphs[0].read_text() == GRAPH + "# one"
    assert settings.indexes["manual"].corpus[0].is_dir()
    assert settings.models == load_settings(config).models


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("{name: a, engine: vllm, source: ./weights}", "source of a is a path on this machine"),
        ("{name: a, engine: vllm, source: ~/weights}", "absolute path"),
        ("{name: a, engine: openai, base_url: 'https://x/v1', tokenizer: ./t}", "tokenizer of a"),
        (
            "{name: a, engine: vllm, source: org/a, speculative: {method: draft_model, source: ./d}}",
            r"speculative\.source",
        ),
    ],
)
def test_weights_of_this_machine_are_refused(config: Path, model: str, named: str) -> None:
    config.write_text(f"models: [{model}]")
    with pytest.raises(ConfigError, match=named):
        bundle(config, "/data")


def test_what_is_too_large_is_refused_by_name(config: Path) -> None:
    (config.parent / "docs" / "index.md").write_text("x" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match=r"the largest is corpus/manual/0/index\.md"):
        bundle(config, "/data")


def test_what_is_no_text_is_refused_by_name(config: Path) -> None:
    (config.parent / "docs" / "index.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"index\.md cannot be read as text"):
        bundle(config, "/data")
