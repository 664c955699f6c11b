"""Bodies that nobody should send, drawn from a seed: noise, JSON that is nearly right, wrong encodings."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from serve_apps.api import documentation
from serve_apps.api.examples import EXAMPLES

JSON = "application/json"
_NAME = re.compile(r"\{\w+\}")
ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -1e-320),
    *("", " ", "x" * 5_000, "\x00", "\u202e", "\ud800", "null", "graph/", "graph/../x", "{acme}", "'; --"),
    *([], {}, [[]], [None], [{}], {"": ""}, {"type": None}, {"$ref": "#"}, {"__proto__": {}}),
]
ODD_TYPES = [
    *("text/plain", "application/xml", "multipart/form-data", "application/json, text/html"),
    *("application/jsonp", "image/png", "", ";", "application/json; charset=utf-16", "a" * 500),
]


class Sent(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


def post_routes() -> list[tuple[str, Any]]:
    """Every path that takes a body, names in it made up, with a body that would be right."""
    routes = []
    for (path, method), route in documentation.ROUTES.items():
        if method == "post" and route.body is not None:
            routes.append((_NAME.sub("x", path), EXAMPLES.get(route.body, {"outputs": {}})))
    return routes


def malformed(seed: int, count: int, **names: str) -> Iterator[Sent]:
    """`names` stand in place of those of the examples."""
    drawn = random.Random(seed)
    routes = post_routes()
    for number in range(count):
        path, example = routes[number % len(routes)]
        text = json.dumps(example)
        for of_example, ours in names.items():
            text = text.replace(of_example, ours)
        make = drawn.choice(KINDS)
        headers, body = make(drawn, json.loads(text))
        yield Sent(path, {"content-type": JSON, **headers}, body)


Made = tuple[dict[str, str], bytes]


def _noise(drawn: random.Random, _: Any) -> Made:
    return {}, drawn.randbytes(drawn.randrange(200))


def _cut(drawn: random.Random, body: Any) -> Made:
    raw = json.dumps(body).encode()
    return {}, raw[: drawn.randrange(len(raw))]


def _flipped(drawn: random.Random, body: Any) -> Made:
    raw = bytearray(json.dumps(body).encode())
    for _ in range(drawn.randint(1, 4)):
        raw[drawn.randrange(len(raw))] = drawn.randrange(256)
    return {}, bytes(raw)


def _odd(drawn: random.Random, body: Any) -> Made:
    """One or more values, anywhere inside, that are not what they should be."""
    for _ in range(drawn.randint(1, 3)):
        body = _changed(drawn, body)
    return {}, json.dumps(body).encode()


def _changed(drawn: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and drawn.random() < 0.8:
        name = drawn.choice(list(value))
        return {**value, name: _changed(drawn, value[name])}
    if isinstance(value, list) and value and drawn.random() < 0.8:
        at = drawn.randrange(len(value))
        return [*value[:at], _changed(drawn, value[at]), *value[at + 1 :]]
    return drawn.choice(ODD_VALUES)


def _named(drawn: random.Random, body: Any) -> Made:
    """A field that is not known, or may be known to whoever is behind the gateway."""
    names = (
        "priority",
        "request_id",
        "cache_salt",
        "guided_json",
        "extra_body",
        "tenant",
        "x" * 300,
        "",
        "\x00",
    )
    return {}, json.dumps({**body, drawn.choice(names): drawn.choice(ODD_VALUES)}).encode()


def _deep(drawn: random.Random, body: Any) -> Made:
    levels = drawn.choice((40, 1_000, 100_000))
    name, (before, after) = json.dumps(drawn.choice(list(body))), drawn.choice((("[", "]"), ('{"a":', "}")))
    nested = before * levels + "1" + after * levels
    whole = json.dumps(body)
    return {}, f"{whole[:-1]}, {name}: {nested}}}".encode()


def _twice(drawn: random.Random, body: Any) -> Made:
    name = drawn.choice(list(body))
    value = json.dumps(drawn.choice(ODD_VALUES))
    return {}, f"{json.dumps(body)[:-1]}, {json.dumps(name)}: {value}}}".encode()


def _number(drawn: random.Random, body: Any) -> Made:
    name = drawn.choice(list(body))
    digits = drawn.choice(("1e999", "-1e999", "9" * 5_000, "0x10", "1_000", "NaN", "Infinity", "-", "00"))
    return {}, f"{json.dumps(body)[:-1]}, {json.dumps(name)}: {digits}}}".encode()


def _encoded(drawn: random.Random, body: Any) -> Made:
    text = json.dumps(body)
    return {}, drawn.choice(
        (
            text.encode("utf-16"),
            text.encode("utf-8-sig"),
            text.encode().replace(b'"', b'"\xff\xfe', 1),
            text.encode().replace(b":", b":\xc0\x80", 1),
            text.encode() + b"\x00",
            text.encode() * 2,
            b"",
            b"null",
            b'"' + b"\\u0000" * 100 + b'"',
        )
    )


def _wrongly_sent(drawn: random.Random, body: Any) -> Made:
    raw = json.dumps(body).encode()
    if drawn.random() < 0.5:
        return {"content-type": drawn.choice(ODD_TYPES)}, raw
    return {"content-encoding": drawn.choice(("gzip", "br", "x"))}, gzip.compress(raw)


KINDS = (_noise, _cut, _flipped, _odd, _odd, _named, _deep, _twice, _number, _encoded, _wrongly_sent)
