"""What the OpenAPI document is told of a route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct


class ErrorObject(Struct, frozen=True):
    message: str
    type: str
    param: str | None
    """The field at fault."""
    code: str


class ErrorBody(Struct, frozen=True):
    """Every answer that is not a success."""

    error: ErrorObject


class AnthropicErrorObject(Struct, frozen=True):
    type: str
    message: str


class AnthropicError(Struct, frozen=True, tag_field="type", tag="error"):
    """The same in Anthropic's dialect: on its routes, and where `anthropic-version` is sent."""

    error: AnthropicErrorObject
    request_id: str


@dataclass(frozen=True)
class Described:
    """What one route takes and answers."""

    summary: str
    answer: type[Any] | None
    """The JSON of a success, where there is one."""
    body: type[Any] | None = None
    tag: str | None = None
    streams: bool = False
    errors: tuple[int, ...] = ()
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON Schemas of the parameters after the `?`."""
    accepts: bool = False
    """Whether it may answer that the run goes on by itself."""
    in_anthropic: type[Any] | None = None
    """The JSON of a success where `anthropic-version` is sent, if it has another shape then."""
    failure: type[Any] = ErrorBody
    """The JSON of an answer that is not a success."""
    status: int = 200
    """Of a success."""


CALL_ERRORS = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
READ_ERRORS = (400, 401, 403, 404, 503)
