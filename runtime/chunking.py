"""Markdown cut into documents of bounded size, each knowing the headings it stands under.

    # Graphs
    ## What is a graph?        ──►  Document(heading="Graphs > What is a graph?", line=5, text="A graph …")
    A graph …

A section becomes one document where it fits; else its paragraphs are packed into as few as hold them, and a
paragraph that is too long itself is cut at the end of a line, a sentence or a word.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from graphs.documents import Document

MAX_CHARS = 900
"""Of a document: about 200 tokens, so that an embedding model sees all of it."""
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_FILES = 10_000

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*")
_FENCE = re.compile(r"\s{0,3}(```+|~~~+)")
_CUTS = ("\n", ". ", " ")


@dataclass(slots=True)
class _Paragraph:
    line: int
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()


def read_corpus(paths: Iterable[Path]) -> list[Document]:
    """The documents of Markdown files, and of all `*.md` below folders, in the order of their names.

    Raises `OSError` for a path that cannot be read, `ValueError` for a file that is too large or not UTF-8.
    """
    documents: list[Document] = []
    for root in paths:
        files = sorted(root.rglob("*.md")) if root.is_dir() else [root]
        if len(files) > MAX_FILES:
            raise ValueError(f"more than {MAX_FILES} files in {root}")
        for file in files:
            with file.open("rb") as opened:
                content = opened.read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:
                raise ValueError(f"{file} is larger than {MAX_FILE_BYTES} bytes")
            documents += chunk(content.decode(), file.relative_to(root.parent).as_posix())
    return documents


def chunk(markdown: str, source: str, max_chars: int = MAX_CHARS) -> list[Document]:
    """The documents of one file. `source` is what they say they come from."""
    documents = []
    for heading, paragraphs in _sections(markdown):
        for line, text in _packed(paragraphs, max_chars):
            documents.append(_document(source, heading, line, text))
    return documents


def halves(document: Document) -> list[Document]:
    """The document as two, for a model that cannot take it whole."""
    pieces = list(_cut(document.text, (len(document.text) + 1) // 2))
    return [_document(document.source, document.heading, document.line, piece) for piece in pieces]


def _sections(markdown: str) -> Iterator[tuple[str, list[_Paragraph]]]:
    """Headings, joined, and the paragraphs below them. A fenced block is one paragraph."""
    headings: list[tuple[int, str]] = []
    paragraphs: list[_Paragraph] = []
    fence: str | None = None
    for number, line in enumerate(markdown.splitlines(), 1):
        opening = _FENCE.match(line)
        heading = None if fence or opening else _HEADING.fullmatch(line)
        if heading:
            yield " > ".join(title for _, title in headings), paragraphs
            paragraphs = []
            level = len(heading[1])
            headings = [(depth, title) for depth, title in headings if depth < level]
            headings.append((level, heading[2]))
            continue
        if not paragraphs or (not line.strip() and fence is None):
            paragraphs.append(_Paragraph(number + (not line.strip())))
        if line.strip() or fence:
            paragraphs[-1].lines.append(line)
        if opening and fence is None:
            fence = opening[1]
        elif opening and fence is not None and opening[1].startswith(fence):
            fence = None
    yield " > ".join(title for _, title in headings), paragraphs


def _packed(paragraphs: list[_Paragraph], max_chars: int) -> Iterator[tuple[int, str]]:
    """First line and text of each document of a section."""
    line, text = 0, ""
    for paragraph in paragraphs:
        if not paragraph.text:
            continue
        if text and len(text) + 2 + len(paragraph.text) > max_chars:
            yield line, text
            text = ""
        if not text:
            line = paragraph.line
        text = f"{text}\n\n{paragraph.text}" if text else paragraph.text
        if len(text) > max_chars:
            for piece in _cut(text, max_chars):
                yield line, piece
            text = ""
    if text:
        yield line, text


def _cut(text: str, max_chars: int) -> Iterator[str]:
    """The text in pieces of at most `max_chars`, at the best places there are."""
    while len(text) > max_chars:
        ends = (text.rfind(mark, 1, max_chars) + len(mark) for mark in _CUTS if mark in text[1:max_chars])
        end = next((end for end in ends if end > max_chars // 2), max_chars)
        yield text[:end].strip()
        text = text[end:].strip()
    if text:
        yield text


def _document(source: str, heading: str, line: int, text: str) -> Document:
    identity = "\0".join((source, heading, text)).encode()
    return Document(hashlib.blake2b(identity, digest_size=8).hexdigest(), text, source, heading, line)
