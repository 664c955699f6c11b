"""`http`: one request to a web server that the deployment lists.

    http:
      url: https://api.example.com/v1/items/{id}
      headers: {accept: application/json, authorization: {env: ITEMS_TOKEN, prefix: "Bearer "}}
    with: {id: "${inputs.item}", query: {lang: en}}

The host is fixed. What is in braces in the path is an input, quoted as it is put in. Secrets are named by
their environment variable and stand neither in the file nor in the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, Fault, NodeSpec, Use
from graphs.ports import ANY, INTEGER, OBJECT, Port, PortType, optional

MAX_BYTES = 16 * 1024 * 1024
QUERY, BODY = "query", "body"
"""Inputs beside those of the path."""

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_PARAMETER = re.compile(r"\{([^{}]*)\}")
_PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_PRINTABLE = re.compile(r"[\t\x20-\x7e]*")
_PORTS = {"http": 80, "https": 443}
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade"})
_SECRET = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})


class Secret(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A value that is read from the environment when the request is made."""

    env: Annotated[str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
    """Name of the variable. The deploy config lists those that may be read."""
    prefix: Annotated[str, Meta(max_length=64)] = ""
    """Put before it, as `Bearer `."""


class Http(NodeSpec, frozen=True, tag_field="kind", tag="http"):
    summary: ClassVar[str] = "makes one request to a web server"
    example: ClassVar[Mapping[str, Any]] = {"url": "https://example.com/"}
    open_inputs: ClassVar[bool] = True

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    """Where the request goes. Its host is fixed; `{name}` in its path is the input of that name."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """A GET may be made again; the others are made once."""
    headers: Annotated[Mapping[str, Annotated[str, Meta(max_length=4096)] | Secret], Meta(max_length=32)] = {}
    """By name: a text, or `{env: NAME}` for a secret, with a `prefix` where it needs one."""
    max_response_bytes: Annotated[int, Meta(ge=1, le=MAX_BYTES)] = 1024 * 1024
    """Most bytes of the answer. More is refused."""

    def inputs(self) -> Mapping[str, Port]:
        ports = {name: Port(ANY, description="part of the path") for name in self.parameters()}
        ports[QUERY] = Port(
            optional(OBJECT), default=None, description="by name: a value, or a list of values"
        )
        if self.method != "GET":
            ports[BODY] = Port(ANY, default=None, description="a text as it is, anything else as JSON")
        return ports

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"status": INTEGER, "body": ANY}

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        return {"status": 0, "body": value}

    @property
    def effects(self) -> Effects:
        return "idempotent" if self.method == "GET" else "effectful"

    def uses(self) -> Sequence[Use]:
        secrets = (value for value in self.headers.values() if isinstance(value, Secret))
        return (
            Use("host", self.host, "url"),
            *(Use("secret", secret.env, "headers") for secret in secrets),
        )

    def parameters(self) -> tuple[str, ...]:
        """The inputs in the path, each once."""
        return tuple(dict.fromkeys(_PARAMETER.findall(self.url)))

    @property
    def host(self) -> str:
        """As the deploy config lists it: in small letters, with a port where that is not the scheme's own."""
        parts = _split(self.url)
        if parts is None or parts.hostname is None:
            return ""
        name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = parts.port
        return name if port is None or port == _PORTS.get(parts.scheme) else f"{name}:{port}"

    def faults(self) -> Sequence[Fault]:
        return [*self._url_faults(), *self._header_faults()]

    def _url_faults(self) -> Iterator[Fault]:
        parts = _split(self.url)
        if parts is None or parts.scheme not in _PORTS or not parts.netloc:
            hint = "as https://api.example.com/v1/items"
            yield Fault("bad-url", "expected a URL with http or https and a host", "url", hint=hint)
        elif "{" in parts.netloc or "}" in parts.netloc:
            yield Fault("bad-url", "the host is fixed, inputs go into the path", "url", token=parts.netloc)
        elif "@" in parts.netloc:
            hint = "put a secret into headers, as {env: NAME}"
            yield Fault("bad-url", "no user and password in a URL", "url", hint=hint)
        elif not _HOST.fullmatch(self.host.rsplit(":", 1)[0] if parts.port else self.host):
            yield Fault("bad-url", f"{parts.netloc} is no host", "url", token=parts.netloc)
        elif not self.url.isascii() or not self.url.isprintable() or " " in self.url or parts.fragment:
            yield Fault("bad-url", "a URL has printable ASCII without spaces and no fragment", "url")
        else:
            yield from self._parameter_faults(parts)

    def _parameter_faults(self, parts: SplitResult) -> Iterator[Fault]:
        if "{" in parts.query or "}" in parts.query:
            hint = "give it in with: {query: {…}}"
            yield Fault("bad-url", "inputs go into the path, not into the query", "url", hint=hint)
        elif re.search(r"[{}]", _PARAMETER.sub("", parts.path)):
            yield Fault("bad-url", "a brace is not closed", "url")
        for name in self.parameters():
            if name in (QUERY, BODY) or not _PARAMETER_NAME.fullmatch(name):
                yield Fault("bad-url", f"{{{name[:64]}}} cannot name an input", "url", token=name or "{}")

    def _header_faults(self) -> Iterator[Fault]:
        for name, value in self.headers.items():
            known = name.lower()
            if not _HEADER_NAME.fullmatch(name):
                yield Fault("bad-header", f"{name[:64]!r} cannot name a header", "headers")
            elif known in _OURS:
                yield Fault("bad-header", f"{name} is set by us", "headers", token=name)
            elif not isinstance(value, Secret) and known in _SECRET:
                hint = f"{name}: {{env: NAME}}"
                yield Fault(
                    "bad-header", f"{name} is a secret, name its variable", "headers", token=name, hint=hint
                )
            elif not _PRINTABLE.fullmatch(value.prefix if isinstance(value, Secret) else value):
                yield Fault("bad-header", f"{name} needs printable ASCII on one line", "headers", token=name)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # a port that is none is found only when it is asked for
    except ValueError:
        return None
    return parts
