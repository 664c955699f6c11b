"""The reference page of the node kinds."""

from pathlib import Path

import graphs
from graphs.nodes.registry import KINDS
from graphs.reference import node_reference

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


def test_the_page_links_to_what_exists():
    assert (PAGE.parent / "../graphs.md").exists()
