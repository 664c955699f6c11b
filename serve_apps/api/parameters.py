"""Parameters after the `?`, checked as strictly as bodies are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from fastapi import Request as HTTPRequest

from serve_apps.gateway.errors import BadRequest
from serve_apps.translators.decoding import suggestion

T = TypeVar("T")


def asked_of(request: HTTPRequest, known: Mapping[str, Any]) -> Mapping[str, str]:
    """The parameters of a request. Raises `BadRequest` for one that is not known."""
    for name in request.query_params:
        if name not in known:
            raise unknown_parameter(name, known)
    return request.query_params


def unknown_parameter(name: str, known: Mapping[str, Any]) -> BadRequest:
    hint = suggestion(name, known)
    return BadRequest(f"There is no parameter {name[:100]!r}.{hint}", param=name[:100], code="unknown_field")


def one_of(name: str, given: str | None, allowed: Collection[T]) -> T | None:
    """Raises `BadRequest` for a value that is not allowed."""
    for each in allowed:
        if given == each:
            return each
    if given is None:
        return None
    raise BadRequest(
        f"{name!r} must be one of {', '.join(map(str, allowed))}.", param=name, code="invalid_value"
    )


def limit_of(given: str | None, usual: int, most: int) -> int:
    """How many a page may have. Raises `BadRequest`."""
    if given is None:
        return usual
    if not (given.isascii() and given.isdigit() and len(given) <= 9 and 1 <= int(given) <= most):
        raise BadRequest(f"'limit' must be 1 to {most}.", param="limit", code="invalid_value")
    return int(given)
