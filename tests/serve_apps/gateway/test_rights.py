"""What a caller may use."""

from __future__ import annotations

import time

import pytest

from serve_apps.gateway.callers import Caller
from serve_apps.gateway.rights import covers, may_call, wrong_endpoint


@pytest.mark.parametrize(
    ("pattern", "path", "may"),
    [
        ("/v1/chat/completions", "/v1/chat/completions", True),
        ("/v1/chat/completions", "/v1/chat/completions/", False),
        ("/v1/chat/completions", "/V1/chat/completions", False),
        ("/v1/chat/completions", "/x/v1/chat/completions", False),
        ("/v1/chat/completions", "/v1/chat/completions\n", False),
        ("/v1/graphs/*/runs", "/v1/graphs/support-rag/runs", True),
        ("/v1/graphs/*/runs", "/v1/graphs/support-rag", False),
        ("/v1/runs*", "/v1/runs", True),
        ("/v1/runs*", "/v1/runs/7/events", True),
        ("/v1/*", "/v1/models", True),
        ("/v1/*", "/admin/v1/keys", False),
        ("*", "/anything", True),
        ("/v1.chat", "/v1xchat", False),
    ],
)
def test_a_list_of_endpoints(pattern: str, path: str, may: bool) -> None:
    assert may_call(Caller("acme", "k", endpoints=["/healthz", pattern]), path) is may
    assert may_call(Caller("acme", "k"), path)
    assert not may_call(Caller("acme", "k", endpoints=[]), path)


@pytest.mark.parametrize(
    ("wide", "narrow", "does"),
    [
        ("*", "*", True),
        ("/v1/*", "/v1/chat/completions", True),
        ("/v1/*", "/v1/graphs/*/runs", True),
        ("/v1/graphs/*/runs", "/v1/graphs/*", False),
        ("/v1/graphs/*", "*", False),
        ("/v1/a*b", "/v1/a*x*b", True),
        ("/v1/a*x*b", "/v1/a*b", False),
    ],
)
def test_a_pattern_that_covers_another(wide: str, narrow: str, does: bool) -> None:
    assert covers(["/none", wide], narrow) is does


@pytest.mark.parametrize(
    "bad", ["", "v1/models", "/v1 x", "/" + "a" * 300, "/" + "*a" * 9, "/\n", "**", "/[a]"]
)
def test_what_is_no_pattern(bad: str) -> None:
    assert wrong_endpoint(bad) is not None
    assert wrong_endpoint("/v1/graphs/*/runs") is None


def test_no_pattern_takes_long() -> None:
    caller = Caller("acme", "k", endpoints=["/" + "*a" * 8 + "!"])
    began = time.process_time()
    assert not may_call(caller, "/" + "a" * 8000)
    assert time.process_time() - began < 100
