"""Calls that would have the gateway ask another host, wherever in a body the host stands; and such a host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.serve_apps.api.inline_attacks import with_nodes

FIELDS = ("api_base", "base_url", "api_url", "endpoint", "proxy", "webhook", "callback_url", "model_url")


class Listener(NamedTuple):
    """A host that nobody has any reason to ask."""

    url: str
    asked: list[str]
    """Who asked, in their first words."""


class Attempt(NamedTuple):
    path: str
    body: dict[str, Any]


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode(errors="replace"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield Listener(f"http://{host}:{port}", asked)


def attempts(model: str, embedder: str, url: str) -> Iterator[Attempt]:
    """In the dialects, at any depth, and in pipelines that come with a call."""
    turn = {"role": "user", "content": "hello"}
    bodies = {
        "/v1/chat/completions": {"model": model, "messages": [turn]},
        "/v1/completions": {"model": model, "prompt": "hello"},
        "/v1/embeddings": {"model": embedder, "input": "hello"},
        "/v1/responses": {"model": model, "input": "hello"},
        "/v1/messages": {"model": model, "max_tokens": 8, "messages": [turn]},
        "/v1/messages/count_tokens": {"model": model, "messages": [turn]},
    }
    for path, body in bodies.items():
        for field in FIELDS:
            yield Attempt(path, {**body, field: url})
            yield Attempt(path, {**body, "extra_body": {field: url}})
            yield Attempt(path, {**body, "metadata": {"model_info": {field: url}}})
            yield Attempt(path, {**body, "model": {"name": body["model"], field: url}})
        yield Attempt(path, {**body, "model": f"openai/{url}"})
        yield Attempt(path, {**body, "model": url})
    chat = bodies["/v1/chat/completions"]
    image = {"type": "image_url", "image_url": {"url": f"{url}/x.png"}}
    yield Attempt("/v1/chat/completions", {**chat, "messages": [{"role": "user", "content": [image]}]})
    for schema in ({"$ref": f"{url}/s.json"}, {"$schema": url, "type": "object"}, {"$id": url, "$ref": "x"}):
        named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
        yield Attempt("/v1/chat/completions", {**chat, "response_format": named})
    tool = {"type": "mcp", "server_label": "x", "server_url": url, "require_approval": "never"}
    yield Attempt("/v1/responses", {**bodies["/v1/responses"], "tools": [tool]})
    source = {"type": "image", "source": {"type": "url", "url": f"{url}/x.png"}}
    messages = bodies["/v1/messages"]
    yield Attempt("/v1/messages", {**messages, "messages": [{"role": "user", "content": [source]}]})
    yield Attempt("/v1/messages", {**messages, "mcp_servers": [{"type": "url", "name": "x", "url": url}]})
    asks = with_nodes(
        f'  a: {{http: {{url: "{url}/x"}}, with: {{query: {{q: "${{inputs.q}}"}}}}}}', "${a.body}"
    )
    yield Attempt("/v1/runs", {"pipeline": asks, "inputs": {"q": "x"}})
    for field in FIELDS:
        says = f'  a: {{llm: {{model: {model}, {field}: "{url}"}}, with: {{prompt: "${{inputs.q}}"}}}}'
        yield Attempt("/v1/runs", {"pipeline": with_nodes(says), "inputs": {"q": "x"}})
