"""Lists of the admin API come in pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serve_apps.api.parameters import limit_of

MAX_LISTED: Final = 100
DEFAULT_LISTED: Final = 20

PAGE_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": DEFAULT_LISTED},
    "after": {"type": "string", "description": "The `last_id` of the page before."},
}


def page_size(asked: Mapping[str, str]) -> int:
    """Raises `BadRequest`."""
    return limit_of(asked.get("limit"), DEFAULT_LISTED, MAX_LISTED)
