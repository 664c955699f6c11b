"""What clients are told of their limits."""

from __future__ import annotations

import pytest

from serve_apps.gateway.applied import LimitKind
from serve_apps.gateway.rate_headers import in_anthropics_words, limit_headers
from serve_apps.gateway.refusals import LimitState


def state(
    kind: LimitKind, limit: int, remaining: int, reset_s: float | None = 12.3, **fields: str
) -> LimitState:
    level = fields.get("level", "key")
    assert level in ("key", "team", "organisation")
    return LimitState(level, "k1", fields.get("model"), kind, limit, remaining, reset_s)  # type: ignore[arg-type]


def test_who_has_no_limits_is_told_nothing() -> None:
    assert limit_headers(()) == []


def test_openai_headers_tell_of_the_nearest_of_each_unit() -> None:
    headers = dict(
        limit_headers(
            [
                state("requests_per_minute", 10, 9),
                state("requests_per_minute", 100, 4, 65.0, level="team"),
                state("tokens_per_minute", 1000, 900),
                state("tokens_per_day", 5000, 800, 3600.0, level="organisation"),
                state("money_per_month", 10**9, 1),
            ]
        )
    )
    assert headers[b"x-ratelimit-limit-requests"] == b"100"
    assert headers[b"x-ratelimit-remaining-requests"] == b"4"
    assert headers[b"x-ratelimit-reset-requests"] == b"65.0s"
    assert headers[b"x-ratelimit-limit-tokens"] == b"5000"
    assert headers[b"x-ratelimit-remaining-tokens"] == b"800"
    assert headers[b"x-ratelimit-reset-tokens"] == b"3600.0s"


@pytest.mark.parametrize(
    ("nearest", "policy", "left"),
    [
        (state("requests_per_minute", 10, 1), b'"key-requests-minute";q=10;w=60;qu="requests"', b";r=1;t=13"),
        (
            state("tokens_per_minute", 500, 5, model="graph/rag"),
            b'"key-tokens-minute-graph/rag";q=500;w=60;qu="tokens"',
            b";r=5;t=13",
        ),
        (
            state("tokens_per_day", 500, 0, 0.0, level="team"),
            b'"team-tokens-day";q=500;w=86400;qu="tokens"',
            b";r=0;t=0",
        ),
        (
            state("money_per_month", 10**15 - 1, 7, level="organisation"),
            b'"organisation-money-month";q=999999999999999;qu="nanodollars"',
            b";r=7;t=13",
        ),
        (
            state("concurrent_requests", 3, 0, None),
            b'"key-concurrent-requests";q=3;qu="concurrent-requests"',
            b";r=0",
        ),
        (
            state("requests_per_minute", 0, 0, 0.0, model='a"b\\c\u00e9'),
            b'"key-requests-minute-a_b_c_";q=0;w=60;qu="requests"',
            b";r=0;t=0",
        ),
    ],
)
def test_the_standard_headers_tell_of_the_limit_that_is_nearest(
    nearest: LimitState, policy: bytes, left: bytes
) -> None:
    headers = dict(limit_headers([state("tokens_per_minute", 100, 99), nearest]))
    assert headers[b"ratelimit-policy"] == policy
    assert headers[b"ratelimit"] == policy[: policy.index(b";")] + left


def test_anthropics_headers_say_when_a_limit_is_whole_again() -> None:
    headers = limit_headers([state("requests_per_minute", 10, 9), state("tokens_per_day", 5000, 800, 3600.0)])
    told = dict(in_anthropics_words([*headers, (b"retry-after", b"7")], 1_800_014_400.5))
    assert told[b"anthropic-ratelimit-requests-limit"] == b"10"
    assert told[b"anthropic-ratelimit-requests-remaining"] == b"9"
    assert told[b"anthropic-ratelimit-requests-reset"] == b"2027-01-15T12:00:13Z"
    assert told[b"anthropic-ratelimit-tokens-reset"] == b"2027-01-15T13:00:01Z"
    assert told[b"retry-after"] == b"7"
    assert b"ratelimit-policy" in told
    assert not any(name.startswith(b"x-ratelimit") for name in told)
