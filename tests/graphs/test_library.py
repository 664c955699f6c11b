"""Every pipeline that comes with the package is right and says what it is for."""

from pathlib import Path

import pytest

import graphs
from graphs.loader import load, load_file
from graphs.writer import to_yaml

LIBRARY = sorted((Path(graphs.__file__).parent / "library").glob("*.yaml"))


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: file.stem)
def test_library(file):
    loaded = load_file(file)
    assert loaded.warnings == []
    assert loaded.pipeline.metadata.name == file.stem
    assert loaded.pipeline.metadata.description
    assert load(to_yaml(loaded.pipeline)).pipeline == loaded.pipeline


def test_support_rag_is_there():
    assert "support-rag" in {file.stem for file in LIBRARY}
