"""A text cut into sentences while it is written. Whatever is cut, the pieces put together are the text.

    "Dr. Ngo paid 3.50", " euros. \\"Why?\\"", " he asked.\\n- Nobody"
    ─► "Dr. Ngo paid 3.50 euros. ", "\\"Why?\\" he asked.\\n", "- Nobody"

A sentence ends at white space behind `.`, `!`, `?` or `…`, quotes and brackets that close it included; at the
end of a line; and at the full stops of Chinese. Not where a small letter follows, nor behind an abbreviation,
an initial or the number of a list item. The white space goes with the sentence before it. So a sentence is
known to have ended when the first letter of the next is there, and it does not matter in which pieces the
text comes.

Rules and a short list of abbreviations, as in Mikheev, "Periods, Capitalized Words, etc." (2002), without
what he learns from the whole of a document. Where they err they mostly leave two sentences together.
"""

from __future__ import annotations

import re

MAX_SENTENCE_CHARS = 1_000
"""Longer ones are cut, between words where there are any."""

_GAP = re.compile(r"[\u3002\uff01\uff1f]++[\u300d\u300f\u201d\u2019]*+\s*+|\s++")
"""Where a sentence may end: white space, and full stops of Chinese with what closes them. Possessive, so that
looking through any text takes linear time."""
_END = re.compile(r"(?<![.!?\u2026])([.!?\u2026]++)([\"'\u201d\u2019»)\]}*_`]*+)\Z")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
"""As `e.g` or `U.S`, without the last point."""
_ABBREVIATIONS = re.compile(
    r"mrs?|ms|dr|prof|st|sr|jr|gen|col|capt|lt|sgt|rev|hon|figs?|eq|sec|ch|vol|pp?|nos?|vs|cf|approx|est|dept"
    r"|univ|inc|ltd|co|corp|ca|al|eds?|resp|incl|max|min|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec",
    re.IGNORECASE,
)
_OPENING = "\"'\u201c\u2018«([{*_`"
_TAIL_CHARS = 64
"""Looked back at from a place where a sentence may end."""


class Sentences:
    """Takes a text piece by piece, gives its sentences."""

    def __init__(self, longest: int = MAX_SENTENCE_CHARS) -> None:
        self._longest = longest
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        """The sentences that have ended, none of them empty or longer than the bound."""
        self._rest += text
        found: list[str] = []
        start = 0
        while (end := self._next(start)) is not None:
            found.append(self._rest[start:end])
            start = end
        self._rest = self._rest[start:]
        return found

    def end(self) -> list[str]:
        """What is left at the end of the text."""
        last, self._rest = self._rest, ""
        return [last] if last else []

    def _next(self, start: int) -> int | None:
        """Where the sentence that begins at `start` ends; None where that is not known yet."""
        text, last = self._rest, start + self._longest
        for gap in _GAP.finditer(text, start, last + 1):
            begin, end = gap.span()
            if end < len(text) and end <= last and _ends(text, start, begin, end):
                return end
        if len(text) <= last:
            return None
        cut = max(text.rfind(" ", start, last), text.rfind("\n", start, last))
        return last if cut < 0 else cut + 1


def split(text: str, longest: int = MAX_SENTENCE_CHARS) -> list[str]:
    """The sentences of a whole text."""
    sentences = Sentences(longest)
    return [*sentences.feed(text), *sentences.end()]


def _ends(text: str, start: int, begin: int, end: int) -> bool:
    """Whether the sentence from `start` ends with what stands from `begin` to `end`, before a next letter."""
    gap, following = text[begin:end], text[end]
    if not gap[0].isspace():
        return True
    if begin == start:
        return False  # there is nothing before it
    if "\n" in gap:
        return gap.count("\n") > 1 or not following.islower()
    tail = text[max(start, begin - _TAIL_CHARS) : begin]
    found = _END.search(tail)
    if found is None or following.islower():
        return False
    return found[1] != "." or found[2] != "" or not _is_short(text, start, begin - 1)


def _is_short(text: str, start: int, point: int) -> bool:
    """Whether the point belongs to the word before it: an abbreviation, an initial, the number of an item."""
    begin = max(text.rfind(sign, start, point) for sign in " \n\t") + 1
    begin = max(begin, start)
    word = text[begin:point].lstrip(_OPENING)
    if word.isdigit():
        line = text[max(text.rfind("\n", start, begin) + 1, start) : begin]
        return not line.strip()
    initial = len(word) == 1 and word.isalpha()
    return initial or _ABBREVIATIONS.fullmatch(word) is not None or _DOTTED.fullmatch(word) is not None
