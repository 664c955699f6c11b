"""What the client is told of its limits, in the headers of answers and of refusals.

    x-ratelimit-limit-tokens: 1000         OpenAI's: of requests, and of tokens, the limit that is nearest
    x-ratelimit-remaining-tokens: 600
    x-ratelimit-reset-tokens: 65.0s
    ratelimit-policy: "key-tokens-minute";q=1000;w=60;qu="tokens"
    ratelimit: "key-tokens-minute";r=600;t=65

    anthropic-ratelimit-tokens-limit: 1000              in place of OpenAI's, to clients of Anthropic's routes
    anthropic-ratelimit-tokens-remaining: 600
    anthropic-ratelimit-tokens-reset: 2026-11-23T12:31:05Z

`ratelimit-policy` and `ratelimit` are those of draft-ietf-httpapi-ratelimit-headers-11: structured fields
(RFC 9651), of the one limit that is nearest of all. `q` is the quota in units of `qu`, `w` its window in
seconds, where that has a length; `r` is what remains, `t` the seconds until all of it is there again, where
anybody knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from serve_apps.gateway.applied import LimitKind
from serve_apps.gateway.callers import LevelKind
from serve_apps.gateway.errors import Header
from serve_apps.gateway.refusals import LimitState, nearest

_OPENAI_NAME = re.compile(rb"x-ratelimit-(limit|remaining|reset)-(requests|tokens)")
_NOT_PRINTABLE = re.compile(r"[^ !#-\[\]-~]")


class _Policy(NamedTuple):
    name: str
    unit: str
    window_s: int | None


_POLICIES: dict[LimitKind, _Policy] = {
    "requests_per_minute": _Policy("requests-minute", "requests", 60),
    "tokens_per_minute": _Policy("tokens-minute", "tokens", 60),
    "concurrent_requests": _Policy("concurrent-requests", "concurrent-requests", None),
    "tokens_per_day": _Policy("tokens-day", "tokens", 24 * 3600),
    "money_per_month": _Policy("money-month", "nanodollars", None),
}
_OPENAI: dict[bytes, tuple[LimitKind, ...]] = {
    b"requests": ("requests_per_minute",),
    b"tokens": ("tokens_per_minute", "tokens_per_day"),
}


def limit_headers(limits: Sequence[LimitState]) -> list[Header]:
    """Those of a call's limits; none where it has none."""
    headers: list[Header] = []
    for unit, kinds in _OPENAI.items():
        state = min((each for each in limits if each.kind in kinds), key=_remaining, default=None)
        if state is not None:
            headers += (
                (b"x-ratelimit-limit-" + unit, b"%d" % state.limit),
                (b"x-ratelimit-remaining-" + unit, b"%d" % state.remaining),
                (b"x-ratelimit-reset-" + unit, b"%.1fs" % (state.reset_s or 0.0)),
            )
    state = nearest(limits)
    if state is not None:
        name, policy = _policy(state.level, state.kind, state.model, state.limit)
        reset = b"" if state.reset_s is None else b";t=%d" % math.ceil(state.reset_s)
        headers += (
            (b"ratelimit-policy", policy),
            (b"ratelimit", b'"%b";r=%d%b' % (name, state.remaining, reset)),
        )
    return headers


def in_anthropics_words(headers: Iterable[Header], now: float) -> list[Header]:
    """The headers, OpenAI's of limits as Anthropic's, which tell of the time at which a limit is whole again.

    `now` is Unix seconds.
    """
    return [_in_anthropics_words(name, value, now) for name, value in headers]


def _in_anthropics_words(name: bytes, value: bytes, now: float) -> Header:
    found = _OPENAI_NAME.fullmatch(name)
    if found is None:
        return name, value
    what, unit = found.groups()
    if what == b"reset":
        whole = datetime.fromtimestamp(math.ceil(now + float(value[:-1])), UTC)
        value = whole.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    return b"anthropic-ratelimit-%b-%b" % (unit, what), value


def _remaining(state: LimitState) -> int:
    return state.remaining


@lru_cache(maxsize=4096)
def _policy(level: LevelKind, kind: LimitKind, model: str | None, limit: int) -> tuple[bytes, bytes]:
    """A policy's name, and the policy."""
    policy = _POLICIES[kind]
    of_model = "" if model is None else "-" + _NOT_PRINTABLE.sub("_", model)
    name = f"{level}-{policy.name}{of_model}"
    window = "" if policy.window_s is None else f";w={policy.window_s}"
    return name.encode(), f'"{name}";q={limit}{window};qu="{policy.unit}"'.encode()
