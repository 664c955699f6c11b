"""`http`: one request, made of the inputs, and the answer as JSON or text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from graphs.nodes.http import BODY, QUERY, Http, Secret
from runtime.errors import NodeError
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values
from runtime.http_client import HttpClient, HttpReply, HttpRequest
from runtime.values import value_fault

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


def prepare(spec: Http, resources: Resources) -> Perform:
    client = resources.http

    async def perform(call: NodeCall, inputs: Values) -> Values:
        body, content_type = _body(inputs.get(BODY))
        request = HttpRequest(
            spec.method,
            _url(spec, inputs),
            _key(spec, call) | _headers(spec, client, content_type),
            body,
            call.deadline,
            spec.max_response_bytes,
        )
        reply = await client.fetch(request)
        return {"status": reply.status, "body": _content(spec, reply)}

    return perform


def _url(spec: Http, inputs: Values) -> str:
    url = spec.url
    for name in spec.parameters():
        url = url.replace(f"{{{name}}}", _segment(name, inputs[name]))
    pairs = urlencode(list(_pairs(inputs.get(QUERY) or {})))
    if not pairs:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{pairs}"


def _segment(name: str, value: Any) -> str:
    text = _scalar(name, value)
    if text in ("", ".", ".."):
        raise NodeError(f"{name} would change the path", param=name)
    return quote(text, safe="")


def _pairs(query: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values; a list gives its name several times, null none."""
    for name, value in query.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                yield name, _scalar(f"{QUERY}.{name}"[:64], item)


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise NodeError(f"{name} is neither a text nor a number nor a boolean", param=name)


def _body(value: Any) -> tuple[bytes | None, str | None]:
    if value is None:
        return None, None
    if isinstance(value, str):
        return value.encode(), _TEXT
    return msgspec.json.encode(value), _JSON


def _headers(spec: Http, client: HttpClient, content_type: str | None) -> dict[str, str]:
    said = {
        name.lower(): value.prefix + client.secret(value.env) if isinstance(value, Secret) else value
        for name, value in spec.headers.items()
    }
    return said if content_type is None else {"content-type": content_type, **said}


def _key(spec: Http, call: NodeCall) -> dict[str, str]:
    """What tells the server of a request that it is the same, however often it is sent.

    The header is that of the IETF draft "The Idempotency-Key HTTP Header Field", as Stripe's API takes it.
    """
    return {"idempotency-key": call.idempotency_key} if spec.effects == "effectful" else {}


def _content(spec: Http, reply: HttpReply) -> Any:
    if reply.content_type != _JSON and not reply.content_type.endswith("+json"):
        try:
            return reply.body.decode(reply.charset, "replace")
        except LookupError:
            return reply.body.decode(errors="replace")
    if not reply.body:
        return None
    try:
        content = msgspec.json.decode(reply.body)
    except (ValueError, RecursionError) as error:
        raise NodeError(f"{spec.host} answered with what is not JSON, though it says so") from error
    fault = value_fault(content)
    if fault is not None:
        raise NodeError(f"{spec.host} answered with what cannot be used: {fault}")
    return content
