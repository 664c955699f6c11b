"""The limits that apply to one call: of its key, team and organisation, for everything and for its model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from runtime.store.naming import check_name, tenant_key
from serve_apps.gateway.callers import Caller, Level, LevelKind
from serve_apps.gateway.limits import Limits

LimitKind = Literal[
    "requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_day", "money_per_month"
]
"""Named as in `Limits`."""

LETTERS: dict[LimitKind, str] = {
    "requests_per_minute": "r",
    "tokens_per_minute": "t",
    "concurrent_requests": "c",
    "tokens_per_day": "d",
    "money_per_month": "m",
}
"""What the scripts call them (`runtime/store/lua/quota.lua`)."""

MAX_APPLIED = 3 * 2 * len(LETTERS)
"""Limits that a call can meet: what a script does for it is bounded."""


class Applied(NamedTuple):
    """One limit that a call is held to."""

    level: LevelKind
    level_id: str
    model: str | None
    """None for a limit of everything together."""
    kind: LimitKind
    most: int
    key: str
    """Where the store counts what is taken of it."""


def applied_limits(caller: Caller, model: str) -> list[Applied]:
    """Those of a call of `model`, the widest level first. Raises `InvalidName`."""
    limits: list[Applied] = []
    for level in caller.levels():
        limits += _of(caller.tenant, level, None, level.allowance.limits)
        if (of_model := level.allowance.models.get(model)) is not None:
            limits += _of(caller.tenant, level, model, of_model)
    return limits


def every_limit(caller: Caller) -> list[Applied]:
    """All that a caller has, those of every model among them."""
    limits: list[Applied] = []
    for level in caller.levels():
        limits += _of(caller.tenant, level, None, level.allowance.limits)
        for model, of_model in level.allowance.models.items():
            limits += _of(caller.tenant, level, model, of_model)
    return limits


def _of(tenant: str, level: Level, model: str | None, limits: Limits) -> Iterator[Applied]:
    for kind in LETTERS:
        most: int | None = getattr(limits, kind)
        if most is not None:
            yield Applied(
                level.kind, level.id, model, kind, most, _key(tenant, level.kind, level.id, model, kind)
            )


@lru_cache(maxsize=16_384)
def _key(tenant: str, level: LevelKind, level_id: str, model: str | None, kind: LimitKind) -> str:
    """A model may be called what no key may: its name is hashed."""
    parts = ["quota", "taken", level, check_name(level, level_id), kind]
    if model is not None:
        parts.append(hashlib.blake2b(model.encode(), digest_size=12).hexdigest())
    return tenant_key(tenant, *parts)
