"""Every pipeline that comes with the package is right and says what it is for."""

from pathlib import Path

import pytest

import graphs
from graphs.known import Known
from graphs.loader import load, load_file
from graphs.prompt_files import load_prompts
from graphs.writer import to_yaml

LIBRARY = sorted((Path(graphs.__file__).parent / "library").glob("*.yaml"))
PROMPTS = Path(graphs.__file__).parent / "library" / "prompts"


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: file.stem)
def test_library(file):
    known = Known(prompts=load_prompts([PROMPTS]))
    loaded = load_file(file, known)
    assert loaded.warnings == []
    assert loaded.pipeline.metadata.name == file.stem
    assert loaded.pipeline.metadata.description
    assert load(to_yaml(loaded.pipeline), known=known).pipeline == loaded.pipeline


def test_support_rag_is_there():
    assert "support-rag" in {file.stem for file in LIBRARY}
