"""`http` nodes: the request that is made of the inputs, and what is made of the answer."""

import time

import pytest

from graphs.builder import Builder
from graphs.nodes.http import Http, Secret
from graphs.ports import STRING
from runtime.compiler.compile import compile_pipeline
from runtime.errors import NodeError
from runtime.executor.kinds.http import prepare
from runtime.executor.kinds.kind import Resources
from runtime.executor.queue import EventQueue
from runtime.executor.run import RunScope
from runtime.http_client import HttpClient
from runtime.runner import Runner
from tests.runtime.parts import finished, node_call, request
from tests.runtime.web import a_site


async def fetch(site, path: str, /, secrets=None, given=None, **settings):
    client = HttpClient({site.host: True}, secrets)
    perform = prepare(Http(url=f"{site.url}{path}", **settings), Resources({}, {}, client))
    call = node_call(RunScope("run", time.time() + 10, "", 0, False), EventQueue(), "ask", 0)
    try:
        return await perform(call, {"query": None, **(given or {})})
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a/b ?#ä", "/x/a%2Fb%20%3F%23%C3%A4/y"),
        ("..%2f", "/x/..%252f/y"),
        (7, "/x/7/y"),
        (True, "/x/true/y"),
    ],
)
async def test_what_is_put_into_the_path_is_quoted(value, path):
    async with a_site() as site:
        await fetch(site, "/x/{part}/y", given={"part": value})
        assert site.seen[0]["path"] == path


@pytest.mark.parametrize("value", ["", ".", "..", None, ["a"], {"a": 1}])
async def test_what_cannot_be_in_a_path(value):
    async with a_site() as site:
        with pytest.raises(NodeError) as refused:
            await fetch(site, "/x/{part}", given={"part": value})
        assert refused.value.param == "part"
        assert site.seen == []


async def test_query():
    async with a_site() as site:
        query = {"q": "a&b", "n": [1, 2], "on": False, "none": None}
        await fetch(site, "/", given={"query": query})
        await fetch(site, "/?fixed=1", given={"query": {"q": "x"}})
        assert [seen["path"] for seen in site.seen] == ["/?q=a%26b&n=1&n=2&on=false", "/?fixed=1&q=x"]
        with pytest.raises(NodeError, match=r"query\.q is neither"):
            await fetch(site, "/", given={"query": {"q": {"a": 1}}})


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        ({"a": [1]}, b'{"a":[1]}', "application/json"),
        ("text ä", "text ä".encode(), "text/plain; charset=utf-8"),
        (None, b"", None),
    ],
)
async def test_body(body, sent, content_type):
    async with a_site() as site:
        await fetch(site, "/", method="POST", given={"body": body})
        (seen,) = site.seen
        assert (seen["method"], seen["body"]) == ("POST", sent)
        assert content_type is None or seen["headers"]["content-type"] == content_type


async def test_requests_with_effects_have_a_key():
    async with a_site() as site:
        await fetch(site, "/", method="POST")
        await fetch(site, "/", method="POST")
        await fetch(site, "/", method="POST", headers={"Idempotency-Key": "mine"})
        await fetch(site, "/")
        first, again, mine, none = (seen["headers"].get("idempotency-key") for seen in site.seen)
        assert first == again is not None
        assert (len(first), mine, none) == (32, "mine", None)


async def test_headers_and_secrets():
    async with a_site() as site:
        headers = {"Authorization": Secret("TOKEN", "Bearer "), "X-Kind": "test", "Content-Type": "text/csv"}
        await fetch(site, "/", {"TOKEN": "abc"}, {"body": "a,b"}, headers=headers, method="PUT")
        sent = site.seen[0]["headers"]
        assert (sent["authorization"], sent["x-kind"], sent["content-type"]) == (
            "Bearer abc",
            "test",
            "text/csv",
        )
        with pytest.raises(NodeError, match="the environment variable TOKEN is not set"):
            await fetch(site, "/", headers=headers)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ({"text": '{"a": [1]}', "content_type": "application/json"}, {"a": [1]}),
        ({"text": "[1]", "content_type": "application/problem+json"}, [1]),
        ({"body": b"", "content_type": "application/json"}, None),
        ({"text": "[1]", "content_type": "text/plain"}, "[1]"),
        ({"body": b"\xe4", "headers": {"content-type": "text/plain; charset=latin-1"}}, "ä"),
        ({"body": b"\xff", "headers": {"content-type": "text/plain; charset=none"}}, "\ufffd"),
    ],
)
async def test_answers(answer, body):
    async with a_site() as site:
        site.answer = {"status": 201, **answer}
        assert await fetch(site, "/") == {"status": 201, "body": body}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[" * 100 + "]" * 100, "nested deeper than 64"),
        ("123456789012345678901234567890", "does not fit 64 bits"),
        ('"\\ud800"', "is not JSON"),
    ],
)
async def test_json_that_cannot_be_used(text, message):
    async with a_site() as site:
        site.answer = {"text": text, "content_type": "application/json"}
        with pytest.raises(NodeError, match=message):
            await fetch(site, "/")


async def test_in_a_run():
    async with a_site() as site:
        site.answer = {"text": '{"name": "x"}', "content_type": "application/json"}
        b = Builder("items")
        item = b.add("item", Http(url=f"{site.url}/items/{{id}}"), id=b.input("question", STRING))
        b.output("item", item["body"])
        pipeline = b.build()
        client = HttpClient({site.host: True})
        runner = Runner([compile_pipeline(pipeline)], Resources({}, http=client))
        end = await finished(runner, request(pipeline, inputs={"question": "a 1"}))
        await client.close()
        assert end.outputs == {"item": {"name": "x"}}
        assert site.seen[0]["path"] == "/items/a%201"
