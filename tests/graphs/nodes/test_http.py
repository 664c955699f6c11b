"""What an `http` node says of itself, and which are refused before they are deployed."""

import msgspec
import pytest
from jsonschema import Draft202012Validator

from graphs.nodes.http import Http, Secret
from graphs.nodes.registry import AnySpec
from graphs.nodes.spec import Use
from graphs.ports import ANY, INTEGER
from graphs.schema import language_schema


def test_ports():
    get = Http(url="https://example.com/a/{one}/{two}/{one}")
    assert list(get.inputs()) == ["one", "two", "query"]
    assert [name for name, port in get.inputs().items() if port.required] == ["one", "two"]
    assert list(Http(url="https://example.com/", method="POST").inputs()) == ["query", "body"]
    assert get.outputs({}) == {"status": INTEGER, "body": ANY}
    assert get.stand_in([]) == {"status": 0, "body": []}


def test_effects():
    assert Http(url="https://example.com/").effects == "idempotent"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert Http(url="https://example.com/", method=method).effects == "effectful"


def test_it_uses_its_host_and_its_secrets():
    headers = {"accept": "text/plain", "authorization": Secret("TOKEN", "Bearer ")}
    spec = Http(url="https://example.com/", headers=headers)
    assert spec.uses() == (Use("host", "example.com", "url"), Use("secret", "TOKEN", "headers"))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://API.example.com/x", "api.example.com"),
        ("https://example.com:443/", "example.com"),
        ("http://example.com:80", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("http://localhost:8080/a?b=c", "localhost:8080"),
        ("http://[2001:DB8::1]:8080/", "[2001:db8::1]:8080"),
    ],
)
def test_host(url, host):
    spec = Http(url=url)
    assert spec.host == host
    assert list(spec.faults()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("example.com/x", "a URL with http or https"),
        ("ftp://example.com/", "a URL with http or https"),
        ("file:///etc/passwd", "a URL with http or https"),
        ("https://", "a URL with http or https"),
        ("https://example.com:port/", "a URL with http or https"),
        ("https://example.com:99999/", "a URL with http or https"),
        ("https://[::1/", "a URL with http or https"),
        ("https://{host}/x", "the host is fixed"),
        ("https://api.{domain}/x", "the host is fixed"),
        ("https://example.com:{port}/x", "a URL with http"),
        ("https://me:secret@example.com/", "no user and password"),
        ("https://exa_mple.com/", "exa_mple.com is no host"),
        ("https://-example.com/", "-example.com is no host"),
        ("https://example.com/a b", "printable ASCII without spaces"),
        ("https://example.com/é", "printable ASCII without spaces"),
        ("https://example.com/#top", "no fragment"),
        ("https://example.com/?q={q}", "not into the query"),
        ("https://example.com/{q", "a brace is not closed"),
        ("https://example.com/{{q}}", "a brace is not closed"),
        ("https://example.com/{}", "{} cannot name an input"),
        ("https://example.com/{a-b}", "{a-b} cannot name an input"),
        ("https://example.com/{query}", "{query} cannot name an input"),
    ],
)
def test_urls_at_fault(url, message):
    (fault,) = Http(url=url).faults()
    assert (fault.code, fault.field) == ("bad-url", "url")
    assert message in fault.message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Host", "x", "Host is set by us"),
        ("content-length", "3", "is set by us"),
        ("a b", "x", "cannot name a header"),
        ("x:y", "x", "cannot name a header"),
        ("x", "a\r\nb: c", "on one line"),
        ("x", "é", "printable ASCII"),
        ("x", Secret("A", "a\n"), "on one line"),
        ("Authorization", "Bearer abc", "is a secret"),
        ("cookie", "a=b", "is a secret"),
    ],
)
def test_headers_at_fault(name, value, message):
    (fault,) = Http(url="https://example.com/", headers={name: value}).faults()
    assert (fault.code, fault.field) == ("bad-header", "headers")
    assert message in fault.message
    assert "abc" not in f"{fault.message}{fault.hint}"


@pytest.mark.parametrize(
    "settings",
    [
        {"url": ""},
        {"method": "TRACE"},
        {"max_response_bytes": 10**9},
        {"headers": {"a": {"env": "a b"}}},
        {"headers": {"a": {"env": "A", "default": "x"}}},
        {"headers": {"a": 1}},
    ],
)
def test_settings_out_of_bounds(settings):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "http", "url": "https://example.com/"} | settings, AnySpec)


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ({"accept": "text/plain", "authorization": {"env": "A", "prefix": "Bearer "}}, True),
        ({"authorization": {"env": "a b"}}, False),
        ({"authorization": {"name": "A"}}, False),
        ({"accept": 1}, False),
    ],
)
def test_the_published_schema_knows_secrets(headers, fits):
    data = {
        "apiVersion": "clustergraph/v1",
        "kind": "Pipeline",
        "metadata": {"name": "x"},
        "nodes": {"ask": {"http": {"url": "https://example.com/", "headers": headers}}},
        "outputs": {"body": "${ask.body}"},
    }
    assert Draft202012Validator(language_schema()).is_valid(data) is fits
