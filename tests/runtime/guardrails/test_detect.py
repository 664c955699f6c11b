"""What is found in a text, what is not, and how long it takes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.guardrails.detect import _SCANS, Detector, Finding, redact
from tests.growth import times_as_long

ALL = tuple(_SCANS)


def found(text: str, *kinds: str, words: tuple[str, ...] = ()) -> list[str]:
    return [text[start:end] for start, end, _ in Detector(kinds or ALL, words)(text)]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "a@b.org"),
        ("email", "first.last+tag@mail.ex-ample.co.uk"),
        ("phone", "+49 30 1234567"),
        ("phone", "+1 (555) 234-5678"),
        ("phone", "0044 20 7946 0958"),
        ("phone", "(555) 234-5678"),
        ("phone", "555.234.5678"),
        ("phone", "030 12345678"),
        ("phone", "06 12 34 56 78"),
        ("credit_card", "4111 1111 1111 1111"),
        ("credit_card", "5500-0000-0000-0004"),
        ("credit_card", "378282246310005"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "GB82WEST12345698765432"),
        ("iban", "nl91 abna 0417 1643 00"),
        ("ip_address", "192.168.0.1"),
        ("ip_address", "2001:db8::8a2e:370:7334"),
        ("ip_address", "fe80::"),
        ("ip_address", "::1"),
        ("ip_address", "::ffff:192.0.2.1"),
    ],
)
@pytest.mark.parametrize("around", ["{}", "see {}.", "({})", "that is {}, or so", "{}\n{}", "x:{}"])
def test_what_is_found(kind, text, around):
    whole = around.format(text, text)
    spans = Detector(ALL)(whole)
    assert {finding.kind for finding in spans} == {kind}
    assert {whole[start:end] for start, end, _ in spans} == {text}
    assert found(whole, kind) == [text] * len(spans)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no data at all",
        "me@home, @handle, a@b, @example.org",
        "on 01-02-2024 at 10:30:45, 2024-11-23",
        "order 1234567890, 1,000,000,000 of them, pi is 3.14159265358979",
        "4111 1111 1111 1112",
        "x4111111111111111",
        "41111111111111111111111",
        "DE89 3704",
        "300.1.1.1, 1.2.3, 1.2.3.4.5, v1.2.3.4",
        "std::string, Class::method, :: and 12:30",
    ],
)
def test_what_is_not_found(text):
    assert found(text) == []


@pytest.mark.parametrize(
    "text",
    ["DE89 3704 0044 0532 0130 01", "XX89 3704 0044 0532 0130 00", "DE89 3704-0044-0532-0130-00", "DE89 37"],
)
def test_what_is_no_account(text):
    assert found(text, "iban") == []


def test_a_card_beside_other_digits():
    assert found("1234 4111 1111 1111 1111 99", "credit_card") == ["4111 1111 1111 1111"]


def test_words_are_whole_and_of_any_case():
    words = ("secret", "project x", "c++", "project")
    assert found("SECRET secrets Project X, C++ and project y", words=words) == [
        "SECRET",
        "Project X",
        "C++",
        "project",
    ]


def test_the_words_of_a_phrase_may_be_apart():
    assert found("Project  X and project\nx, not projectx", words=("project x",)) == [
        "Project  X",
        "project\nx",
    ]


def test_only_what_is_asked_for():
    text = "a@b.org 1.2.3.4"
    assert found(text, "email") == ["a@b.org"]
    assert Detector(())(text) == []


def test_of_findings_that_overlap_the_first_and_longest_stays():
    assert Detector(("email",), ("a", "b.org", "org x"))("a@b.org x") == [Finding(0, 7, "email")]


def test_redact():
    text = "a@b.org or 1.2.3.4!"
    assert redact(text, Detector(ALL)(text)) == "[email] or [ip_address]!"
    assert redact(text, []) == text


@given(st.text(st.sampled_from("a1 @.-+:/()DE89f\n"), max_size=60), st.sampled_from([(), ("a1", "e")]))
def test_nothing_is_found_in_what_is_left(text, words):
    detect = Detector(ALL, words)
    findings = detect(text)
    assert all(first.end <= second.start for first, second in pairwise(findings))
    assert all(text[finding.start : finding.end].strip() for finding in findings)
    assert len(redact(text, findings).split("[")) >= len(findings) + 1


HARD = (
    "a",
    "a.",
    "a@",
    "a@a.",
    "1 ",
    "+1 ",
    "0 1 ",
    "DE89 ",
    "1.",
    "f:",
    "::",
    "01 ",
    "secre",
    "4111 1111 ",
    "1-",
)


@pytest.mark.parametrize("piece", HARD)
def test_no_text_takes_long(piece):
    """A pattern that looks back over what it has seen would need hours for these."""
    detect = Detector(ALL, ("secret",))
    assert times_as_long(lambda size: detect((piece * size)[:size] + "x"), 5_000, 40_000) < 25
