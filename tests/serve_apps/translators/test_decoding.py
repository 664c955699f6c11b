"""Strict decoding: errors name the field, what it should be, and the nearest right name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from serve_apps.gateway.errors import BadRequest
from serve_apps.translators.decoding import MAX_FREE_FORM_DEPTH, BodyDecoder, check_free_form
from serve_apps.translators.openai import ChatBody

decode = BodyDecoder(ChatBody).decode
USER = {"role": "user", "content": "hi"}


def refused(body: Any) -> BadRequest:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    with pytest.raises(BadRequest) as caught:
        decode(raw)
    return caught.value


@pytest.mark.parametrize(
    ("body", "param", "code", "says"),
    [
        ({"model": "m", "messages": [USER], "temprature": 1}, "temprature", "unknown_field", "'temperature'"),
        ({"model": "m", "messages": [{**USER, "nam": "x"}]}, "messages[0].nam", "unknown_field", "'name'"),
        (
            {"model": "m", "messages": [USER], "stream_options": {"includeusage": True}},
            "stream_options.includeusage",
            "unknown_field",
            "'include_usage'",
        ),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "txt": "x"}]}]},
            "messages[0].content[0].txt",
            "unknown_field",
            "'text'",
        ),
        ({"model": "m", "messages": [USER], "zzz": 1}, "zzz", "unknown_field", "Unknown field 'zzz'."),
        ({"messages": [USER]}, "model", "missing_field", "'model'"),
        ({"model": "m", "messages": [{"content": "x"}]}, "messages[0].role", "missing_field", "role"),
        ({"model": "m", "messages": "hi"}, "messages", "invalid_value", "Expected `array`, got `str`"),
        ({"model": "m", "messages": [USER], "n": 9}, "n", "invalid_value", "<= 8"),
        ({"model": "m", "messages": [USER], "temperature": "hot"}, "temperature", "invalid_value", "float"),
        ({"model": "m", "messages": [{"role": "robot"}]}, "messages[0].role", "invalid_value", "robot"),
        ({"model": "m", "messages": [{"role": "robot"}]}, "messages[0].role", "invalid_value", "'user'"),
        (
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
            "It may be 'text', 'image_url', 'input_audio'.",
        ),
        ([], None, "invalid_value", "object"),
        (b"{not json", None, "invalid_json", "not valid JSON"),
        (b'{"model": "\xff"}', None, "invalid_json", "UTF-8"),
    ],
)
def test_what_is_wrong_is_named(body: Any, param: str | None, code: str, says: str) -> None:
    error = refused(body)
    assert (error.param, error.code) == (param, code)
    assert says in error.message


def test_free_form_is_bounded_in_depth() -> None:
    value: Any = {"leaf": 1}
    for level in range(MAX_FREE_FORM_DEPTH - 2):
        value = {"inner": value} if level % 2 else [value]
    check_free_form(value, "tools")
    with pytest.raises(BadRequest, match="nested deeper") as caught:
        check_free_form([[value]], "tools")
    assert caught.value.param == "tools"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**40])
def test_numbers_that_no_wire_carries(number: int) -> None:
    check_free_form({"a": [2**63 - 1, 1.5, None, "x", True]}, "inputs")
    with pytest.raises(BadRequest, match="64 bits"):
        check_free_form({"a": [number]}, "inputs")


def test_nesting_beyond_the_decoder() -> None:
    body = b'{"messages":[],"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":'
    error = refused(body + b'{"a":' * 50_000 + b"1" + b"}" * 50_003)
    assert error.status == 400
