"""What the gateway answers when it does not answer.

    GatewayError             an HTTP status, OpenAI's `type`, `code` and `param`
    ├── BadRequest           400
    ├── Unauthorized         401
    ├── Forbidden            403
    ├── NotFound             404
    ├── MethodNotAllowed     405
    ├── RequestTimedOut      408
    ├── Conflict             409
    ├── BodyTooLarge         413
    ├── UnsupportedMediaType 415
    ├── Unprocessable        422
    │   └── InvalidPipeline  with all that is wrong with a pipeline
    ├── RateLimited          429
    ├── InternalError        500
    └── Unavailable          503
    ClientGone               nobody is left to answer

The messages are read by strangers: they never hold a key, another tenant's names, or a stack trace.
`failures.py` turns the errors of the packages below into these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

Header = tuple[bytes, bytes]


class GatewayError(Exception):
    """Base of every answer that is an error."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s
        self.extra_headers = headers

    def as_object(self) -> dict[str, Any]:
        """The error object in OpenAI's shape; `wording.py` has other dialects."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def headers(self) -> list[Header]:
        """`Retry-After` in whole seconds, at least one, and whatever else the error carries."""
        headers = list(self.extra_headers)
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(self.retry_after_s))))
        return headers


class BadRequest(GatewayError):
    """The call is malformed: it must be changed before it can succeed."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class Unauthorized(GatewayError):
    """No key, or one that is malformed, unknown, expired or revoked."""

    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"

    def headers(self) -> list[Header]:
        return [(b"www-authenticate", b"Bearer"), *super().headers()]


class Forbidden(GatewayError):
    """A good key that may not do this."""

    status = 403
    type = "permission_error"
    default_code = "permission_denied"


class NotFound(GatewayError):
    """No such route, model, graph or context."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowed(GatewayError):
    """The route exists, under other methods."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class RequestTimedOut(GatewayError):
    """The request's deadline passed."""

    status = 408
    type = "timeout_error"
    default_code = "request_timeout"


class Conflict(GatewayError):
    """Somebody else was first: another turn changed the context, or another person decided."""

    status = 409
    type = "conflict_error"
    default_code = "conflict"


class BodyTooLarge(GatewayError):
    """More bytes than a body may have."""

    status = 413
    type = "invalid_request_error"
    default_code = "body_too_large"


class UnsupportedMediaType(GatewayError):
    """A body that is not JSON."""

    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_media_type"


class Unprocessable(GatewayError):
    """Well formed, yet it does not fit what it is sent to, such as a graph's inputs."""

    status = 422
    type = "invalid_request_error"
    default_code = "unprocessable"


class InvalidPipeline(Unprocessable):
    """A pipeline that a call brought along and that cannot be run."""

    default_code = "invalid_pipeline"

    def __init__(self, message: str, problems: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message, param="pipeline")
        self.problems = list(problems)

    def as_object(self) -> dict[str, Any]:
        return {**super().as_object(), "problems": self.problems}


class RateLimited(GatewayError):
    """The key's quota does not hold the call, now or (without `retry_after_s`) ever."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class InternalError(GatewayError):
    """Our fault. The log has the reason under the request id."""


class Unavailable(GatewayError):
    """Something behind the gateway cannot answer now; the same call may succeed later."""

    status = 503
    type = "server_error"
    default_code = "unavailable"


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""
