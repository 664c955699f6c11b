"""Markdown cut into documents."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.chunking import MAX_FILE_BYTES, chunk, halves, read_corpus

TEXT = """\
Before any heading.

# Guide

Intro.

## Install

First paragraph.

Second paragraph.

```sh
# not a heading

make serve
```

### Deep ###

Deep text.

# Other

Last.
"""


def test_sections_become_documents():
    found = [(d.heading, d.line, d.text) for d in chunk(TEXT, "guide.md")]
    assert found == [
        ("", 1, "Before any heading."),
        ("Guide", 5, "Intro."),
        (
            "Guide > Install",
            9,
            "First paragraph.\n\nSecond paragraph.\n\n```sh\n# not a heading\n\nmake serve\n```",
        ),
        ("Guide > Install > Deep", 21, "Deep text."),
        ("Other", 25, "Last."),
    ]
    assert {d.source for d in chunk(TEXT, "guide.md")} == {"guide.md"}


def test_long_sections_are_packed_by_paragraph():
    text = "# A\n\n" + "\n\n".join(f"paragraph number {i}" for i in range(20))
    found = chunk(text, "a.md", max_chars=60)
    assert all(len(d.text) <= 60 for d in found)
    assert [d.line for d in found[:3]] == [3, 9, 15]
    assert "\n\n".join(d.text for d in found) == text[5:]


def test_a_long_paragraph_is_cut_where_a_sentence_ends():
    text = "One sentence here. Another sentence here. A third one here."
    found = [d.text for d in chunk(text, "a.md", max_chars=45)]
    assert found == ["One sentence here. Another sentence here.", "A third one here."]


def test_a_word_without_end_is_cut_anywhere():
    assert [len(d.text) for d in chunk("x" * 100, "a.md", max_chars=40)] == [40, 40, 20]


def test_ids_are_stable_and_tell_documents_apart():
    one, two = chunk(TEXT, "guide.md"), chunk(TEXT, "guide.md")
    assert one == two
    assert len({d.id for d in one}) == len(one)
    assert one[0].id != chunk(TEXT, "other.md")[0].id


def test_halves():
    (whole,) = chunk("one two three four", "a.md")
    assert [d.text for d in halves(whole)] == ["one two", "three", "four"]


@given(st.text(alphabet="#`ab .\n-", max_size=200), st.integers(10, 60))
def test_nothing_is_lost_and_nothing_is_too_long(text, max_chars):
    found = chunk(text, "a.md", max_chars)
    assert all(0 < len(d.text) <= max_chars for d in found)
    kept = "".join(d.text + d.heading for d in found).replace(" > ", "")
    for letter in "a":
        headings = sum(line.lstrip("#").count(letter) for line in text.splitlines() if line.startswith("#"))
        assert sum(d.text.count(letter) for d in found) >= text.count(letter) - headings
    assert isinstance(kept, str)


def test_read_corpus(tmp_path: Path):
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "docs" / "b.md").write_text("B")
    (tmp_path / "docs" / "deep" / "a.md").write_text("A")
    (tmp_path / "docs" / "c.txt").write_text("no")
    (tmp_path / "README.md").write_text("R")
    found = read_corpus([tmp_path / "docs", tmp_path / "README.md"])
    assert [(d.source, d.text) for d in found] == [
        ("docs/b.md", "B"),
        ("docs/deep/a.md", "A"),
        ("README.md", "R"),
    ]


def test_a_corpus_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_corpus([tmp_path / "none.md"])
    large = tmp_path / "large.md"
    large.write_bytes(b"a" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ValueError, match="larger than"):
        read_corpus([large])
    large.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_corpus([large])
