"""Finds personal data and words in a text, by patterns and checksums.

    Detector(("email",), ("secret",))("a@b.org is secret")  ─►  [email 0..7, word 11..17]

Every pattern takes time linear in the text: repetitions are bounded, or what follows them cannot match what
they repeat. Card numbers are checked by Luhn's algorithm (ISO/IEC 7812-1), bank accounts by the remainder by
97 (ISO 13616) and the length of their country.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from graphs.errors import word_pattern
from graphs.nodes.guardrail import Pii

WORD = "word"
"""Kind of a finding that is one of the words."""

Span = tuple[int, int]
Scan = Callable[[str], Iterator[Span]]


class Finding(NamedTuple):
    """A part of a text. Its value is never kept, so that it cannot leak."""

    start: int
    end: int
    kind: str


class Detector:
    """Calling it gives what is found in a text, in its order; the first and longest of what overlaps."""

    def __init__(self, pii: Iterable[Pii], words: Iterable[str] = ()) -> None:
        self._scans: list[tuple[str, Scan]] = [(kind, _SCANS[kind]) for kind in pii]
        longest_first = sorted(words, key=len, reverse=True)
        if longest_first:
            # The words of a phrase may stand on two lines, or far apart.
            patterns = (word_pattern(word).replace(r"\ ", r"\s{1,8}") for word in longest_first)
            pattern = re.compile("|".join(patterns), re.IGNORECASE)
            self._scans.append((WORD, lambda text: (match.span() for match in pattern.finditer(text))))

    def __call__(self, text: str) -> list[Finding]:
        found = [Finding(start, end, kind) for kind, scan in self._scans for start, end in scan(text)]
        found.sort(key=lambda finding: (finding.start, -finding.end))
        apart: list[Finding] = []
        for finding in found:
            if not apart or finding.start >= apart[-1].end:
                apart.append(finding)
        return apart


def redact(text: str, findings: Iterable[Finding]) -> str:
    """The text with each finding replaced by its kind in brackets. `findings` as a `Detector` gives them."""
    pieces, last = [], 0
    for start, end, kind in findings:
        pieces += [text[last:start], f"[{kind}]"]
        last = end
    return "".join([*pieces, text[last:]])


_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}+@(?:[\w-]{1,63}+\.){1,8}[^\W\d_]{2,24}+(?![\w-])")
_PHONE = re.compile(
    # +49 30 1234567, 0044 (20) 7946 0958
    r"(?<![\w+])(?:\+|00)[1-9](?:[ ().\-/]{0,2}\d){7,14}(?!\w)"
    # (555) 234-5678, 555-234-5678, 1 555 234 5678
    r"|(?<!\w)(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?!\w)"
    # 030 1234567, 06 12 34 56 78; not 01-02-2024
    r"|(?<![\w.,-])(?!\d\d[-/]\d\d[-/]\d{4})0[1-9]\d{0,3}(?:[ \-/]\d{2,8}){1,5}(?!\w)"
)
_PHONE_DIGITS = range(8, 16)
_DIGITS = re.compile(r"(?<!\w)\d(?:[ -]?\d)*+")
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[0689]\d{12}|(?:35|6\d)\d{14,17}"
)
_MAX_CARD_DIGITS = 19
_GROUP = re.compile(r"\d+")
_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}\d\d(?=[ A-Za-z0-9])")
_IBAN_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 "
    "QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
)
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBAN_COUNTRIES.split()}
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
_COLONS = re.compile(r"(?<![\w.:])[\w.]*+:[\w.]*+:[\w.:]*+")
_HEX_GROUP = re.compile(r"[0-9A-Fa-f]{0,4}")


def _emails(text: str) -> Iterator[Span]:
    return (match.span() for match in _EMAIL.finditer(text))


def _phones(text: str) -> Iterator[Span]:
    for match in _PHONE.finditer(text):
        if sum(char.isdigit() for char in match[0]) in _PHONE_DIGITS:
            yield match.span()


def _cards(text: str) -> Iterator[Span]:
    """Runs of whole groups of digits, of a card's length, whose checksum is right."""
    for match in _DIGITS.finditer(text):
        groups = list(_GROUP.finditer(text, *match.span()))
        first = 0
        while first < len(groups):
            last = _card_end(groups, first)
            if last is not None and not text[groups[last].end() :][:1].isalnum():
                yield groups[first].start(), groups[last].end()
                first = last
            first += 1


def _card_end(groups: list[re.Match[str]], first: int) -> int | None:
    """The last of the groups from `first` on that together are a card's number; the longest such."""
    digits, end = "", None
    for index in range(first, len(groups)):
        digits += groups[index][0]
        if len(digits) > _MAX_CARD_DIGITS:
            break
        if _CARD.fullmatch(digits) and _luhn(digits):
            end = index
    return end


def _luhn(digits: str) -> bool:
    """Every second digit from the right counts twice, as the sum of its digits."""
    odd = sum(int(digit) for digit in digits[-1::-2])
    even = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (odd + even) % 10 == 0


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2].upper())
        if length is None:
            continue
        # Printed in groups of four, so at most one space before every fourth.
        window = text[match.start() : match.start() + length + length // 4]
        end = _end_of(window, length)
        if end is None or text[match.start() + end :][:1].isalnum():
            continue
        account = window[:end].replace(" ", "").upper()
        if int("".join(str(int(char, 36)) for char in account[4:] + account[:4])) % 97 == 1:
            yield match.start(), match.start() + end


def _end_of(window: str, length: int) -> int | None:
    """Where the first `length` letters and digits end; None where something else is between them."""
    seen = 0
    for index, char in enumerate(window):
        if char.isascii() and char.isalnum():
            seen += 1
            if seen == length:
                return index + 1
        elif char != " ":
            return None
    return None


def _addresses(text: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text):
        if _is_address(match[0], ipaddress.IPv4Address):
            yield match.span()
    for match in _COLONS.finditer(text):
        start, run = match.start(), match[0]
        label, _, rest = run.partition(":")
        if not _HEX_GROUP.fullmatch(label):  # as in "server:2001:db8::1"
            start, run = start + len(label) + 1, rest
        run = run.rstrip(".")
        run = run if run.endswith("::") else run.rstrip(":")
        if run.strip(":") and _is_address(run, ipaddress.IPv6Address):
            yield start, start + len(run)


def _is_address(text: str, kind: Callable[[str], object]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


_SCANS: Mapping[Pii, Scan] = {
    "email": _emails,
    "phone": _phones,
    "credit_card": _cards,
    "iban": _ibans,
    "ip_address": _addresses,
}
