"""The response parser finds the end of an answer, however its bytes arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.http1 import Answer, ResponseParser, wire_bytes
from benchmarks.scenario import HttpRequest

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
    b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"
)


def parse(pieces: list[bytes]) -> Answer | None:
    parser = ResponseParser()
    answer = None
    for at, piece in enumerate(pieces):
        assert answer is None, "complete before its end"
        answer = parser.feed(piece, float(at + 1))
    return answer


@given(st.sampled_from([SIZED, CHUNKED]), st.sets(st.integers(1, len(CHUNKED) - 1)))
def test_any_cut_of_the_bytes_gives_the_same_answer(wire, cuts):
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    answer = parse([wire[a:b] for a, b in pairwise(edges)])
    assert answer is not None
    assert (answer.status, answer.body, answer.close) == (200, b"hello world", False)


def test_the_first_byte_is_that_of_the_body():
    head, body = SIZED.split(b"\r\n\r\n")
    answer = parse([head + b"\r\n\r\n", body[:1], body[1:]])
    assert answer is not None
    assert answer.first_byte == 2.0


def test_answers_follow_each_other_on_one_connection():
    parser = ResponseParser()
    first = parser.feed(CHUNKED, 1.0)
    second = parser.feed(SIZED, 2.0)
    assert first is not None
    assert second is not None
    assert second.first_byte == 2.0


def test_an_empty_body_is_an_answer():
    answer = parse([b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"])
    assert answer is not None
    assert (answer.status, answer.body, answer.close) == (503, b"", True)


@pytest.mark.parametrize("wire", [SIZED + b"extra", b"HTTP/1.1 200 OK\r\n\r\nendless"])
def test_an_answer_without_an_end_is_refused(wire):
    with pytest.raises(ValueError, match=r"after the end|neither"):
        ResponseParser().feed(wire, 1.0)


def test_the_request_carries_its_length_and_headers():
    wire = wire_bytes(HttpRequest("127.0.0.1", 8000, "/v1", b"{}", {"Authorization": "Bearer k"}))
    head, body = wire.split(b"\r\n\r\n")
    assert head.startswith(b"POST /v1 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n")
    assert b"\r\nContent-Length: 2\r\n" in head
    assert head.endswith(b"\r\nAuthorization: Bearer k")
    assert body == b"{}"
