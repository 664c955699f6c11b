"""The values of the port types that are more than JSON's own."""

from __future__ import annotations

import msgspec


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of text found by a retrieval, and where it comes from."""

    id: str
    """The same for the same text of the same source."""
    text: str
    source: str = ""
    """Path or URL of what the text was taken from."""
    heading: str = ""
    """Headings above the text, outermost first, joined by ` > `."""
    line: int = 0
    """Line of the source at which the text begins, from 1; 0 where lines mean nothing."""
    score: float = 0.0
    """Similarity to the query, higher is nearer; cosine, so from -1 to 1."""

    @property
    def whole(self) -> str:
        """What is embedded: the headings say what a paragraph is about."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text
