"""The models that a key may call, as Anthropic's SDKs list them.

They are told apart from OpenAI's by the header `anthropic-version`: the two shapes share a path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.errors import BadRequest

DEFAULT_PAGE = 20
MAX_PAGE = 1000
PAGE_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_PAGE,
        "description": f"With `anthropic-version`: how many on a page, {DEFAULT_PAGE} if not said.",
    },
    "after_id": {"type": "string", "description": "With `anthropic-version`: those behind this one."},
    "before_id": {"type": "string", "description": "With `anthropic-version`: those in front of this one."},
}


class AnthropicModel(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="model"):
    id: str
    display_name: str
    created_at: str
    """RFC 3339; the epoch where it is not known."""
    lifecycle: Literal["active"]
    max_input_tokens: int | None = None
    """Tokens of prompt and output together."""


class AnthropicModelPage(Struct, frozen=True):
    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


def describe(gateway: Gateway, model: str) -> AnthropicModel:
    """A model, or a `graph/NAME`, that is there."""
    pool = gateway.pools.get(model)
    created = pool.info.created if pool is not None else 0
    at = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    return AnthropicModel(model, model, at, "active", pool.info.max_context if pool is not None else None)


def page(gateway: Gateway, names: Sequence[str], query: Mapping[str, str]) -> AnthropicModelPage:
    """The page of these models that `limit`, `after_id` and `before_id` ask for. Raises `BadRequest`."""
    limit = _limit(query.get("limit", str(DEFAULT_PAGE)))
    after, before = _place(names, query, "after_id"), _place(names, query, "before_id")
    if before is not None:
        shown, more = names[max(0, before - limit) : before], before > limit
    else:
        first = 0 if after is None else after + 1
        shown, more = names[first : first + limit], len(names) > first + limit
    ends = (shown[0], shown[-1]) if shown else (None, None)
    return AnthropicModelPage([describe(gateway, name) for name in shown], more, *ends)


def _limit(given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 4 and 1 <= int(given) <= MAX_PAGE):
        raise BadRequest(f"'limit' must be a number from 1 to {MAX_PAGE}.", param="limit")
    return int(given)


def _place(names: Sequence[str], query: Mapping[str, str], param: str) -> int | None:
    given = query.get(param)
    if given is None:
        return None
    if given not in names:
        raise BadRequest(f"{param!r} names no model that is listed.", param=param)
    return names.index(given)
