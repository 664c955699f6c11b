"""The reference page of the node kinds."""

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import graphs
from graphs import yaml_tree
from graphs.nodes.registry import KINDS
from graphs.reading.pipeline import read_pipeline
from graphs.reference import explained, node_reference
from graphs.schema import language_schema

PAGE = Path(graphs.__file__).parent.parent / "docs" / "reference" / "nodes.md"


def test_what_is_published_is_current():
    assert PAGE.read_text() == node_reference(), "run `clustergraph reference > docs/reference/nodes.md`"


def test_every_kind_has_a_section():
    lines = node_reference().splitlines()
    assert [line[3:] for line in lines if line.startswith("## ")] == list(KINDS)


def test_rows():
    lines = node_reference().splitlines()
    assert "| `max_tokens` | integer, 1 to 131072 | `128` | Most tokens of the answer. |" in lines
    assert "| `top_k` | integer, 1 to 100 | `3` | most documents to find |" in lines
    assert "| `documents` | list[Document] |" in lines


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_is_a_node_of_its_kind(kind):
    yaml, _ = explained(KINDS[kind])
    assert f"```yaml\n{yaml}\n```" in node_reference()
    data = {
        "apiVersion": "clustergraph/v1",
        "kind": "Pipeline",
        "metadata": {"name": "example"},
        "nodes": {"it": yaml_tree.read(yaml).data},
        "outputs": {},
    }
    assert list(Draft202012Validator(language_schema()).iter_errors(data)) == []
    pipeline, reading = read_pipeline(data)
    elsewhere = {"function": "my_package", "subgraph": "support-rag"}
    if kind in elsewhere:
        (problem,) = reading.problems
        assert elsewhere[kind] in problem.message
    else:
        assert reading.problems == []
        assert pipeline.nodes["it"].kind == kind
        assert not pipeline.nodes["it"].spec.faults()


def test_the_page_links_to_what_exists():
    assert (PAGE.parent / "../graphs.md").exists()
