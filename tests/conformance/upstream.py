"""A small OpenAI-compatible server over the fake engine, for pools that speak HTTP to a provider.

What it does wrong is asked for in the last user message: `TROUBLES` names what it can do.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from aiohttp import web

from cluster.engines.fake import FakeEngine, FakeTokenCounter
from cluster.errors import ClusterError, InvalidCall, Overloaded
from cluster.interface import Batch
from cluster.messages import Delta, Embed, Finish, Generate, Message, Sampling, Usage

KEY = "sk-upstream-secret"
GENERATE, EMBED = "upstream-chat", "upstream-embed"
MAX_CONTEXT = 512
CHAT_S = 120.0

TROUBLES = {
    "trouble: cut": "the connection breaks in the middle of the reply",
    "trouble: no done": "the stream ends in good order, but without [DONE]",
    "trouble: no usage": "usage is never reported",
    "trouble: early usage": "usage comes with every chunk of a stream",
    "trouble: html": "an HTML page with status 200",
    "trouble: empty": "a reply without choices or usage",
    "trouble: redirect": "a redirect to somewhere else",
    "trouble: garbage": "bytes that are not UTF-8",
    "trouble: late end": "the connection is free only a while after [DONE]",
    "trouble: error in stream": "an error object in the middle of a stream",
    "trouble: cookie": "a Set-Cookie",
    "trouble: 401": "a refused key, which it quotes",
    "trouble: 429": "a full queue, back in 7 seconds",
    "trouble: 500": "a broken server",
    "trouble: 503": "a server that starts, until a date",
}


class Upstream:
    """The server, and what has been asked of it."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.requests: list[tuple[web.Request, dict[str, Any]]] = []
        self.url = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Upstream]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._embed)
        # A client that leaves cancels its handler, and with it the call in the engine.
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await self._accept(request)
        chat = "messages" in body
        call = _call(body)
        trouble = next((name for name in TROUBLES if name in _asked(body)), "")
        if body["model"] != GENERATE:
            return _error(400, "this model does not generate", "model")
        if (refusal := _refusal(trouble, request)) is not None:
            return refusal
        prompt_tokens = FakeTokenCounter().count(call)
        if prompt_tokens + call.max_tokens > MAX_CONTEXT:
            return _error(400, f"the prompt has {prompt_tokens} tokens", "messages" if chat else "prompt")
        try:
            if call.stream:
                return await self._stream(request, call, trouble)
            return await self._whole(request, call, trouble)
        except Overloaded as error:
            return _error(429, error.message, headers={"Retry-After": "3"})
        except InvalidCall as error:
            return _error(400, error.message, error.param)
        except ClusterError as error:
            return _error(500, error.message)

    async def _whole(self, request: web.Request, call: Generate, trouble: str) -> web.Response:
        async with aclosing(self.engine.generate(call)) as batches:
            [batch] = [batch async for batch in batches]
        if trouble == "trouble: cut":
            assert request.transport is not None
            request.transport.close()
        choices = [
            _whole_choice(batch, index, chat=call.messages is not None) for index in range(call.sampling.n)
        ]
        reply: dict[str, Any] = {"id": "x", "object": "chat.completion", "choices": choices}
        if trouble != "trouble: no usage":
            reply["usage"] = _usage(batch)
        return web.json_response({"choices": []} if trouble == "trouble: empty" else reply)

    async def _stream(self, request: web.Request, call: Generate, trouble: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        sent, usage = 0, Usage()
        async with aclosing(self.engine.generate(call)) as batches:
            async for batch in batches:
                # The first tokens exist: what fails before them still has a status of its own.
                if not response.prepared:
                    await response.prepare(request)
                for event in batch:
                    if isinstance(event, Usage):
                        usage = event
                        continue
                    chunk: dict[str, Any] = {
                        "choices": [_chunk_choice(event, chat=call.messages is not None)]
                    }
                    sent += isinstance(event, Delta)
                    if trouble == "trouble: early usage":
                        chunk["usage"] = {"prompt_tokens": 1, "completion_tokens": sent}
                    await _send(response, chunk)
                if trouble and sent and await _break_off(trouble, request, response):
                    return response
        if trouble != "trouble: no usage":
            await _send(response, {"choices": [], "usage": _usage([usage])})
        if trouble != "trouble: no done":
            await response.write(b"data: [DONE]\n\n")
        if trouble == "trouble: late end":
            await asyncio.sleep(0.02)
        return response

    async def _embed(self, request: web.Request) -> web.Response:
        body = await self._accept(request)
        if body["model"] != EMBED:
            return _error(400, "this model does not embed", "model")
        call = Embed("r", EMBED, body["input"], time.time() + CHAT_S)
        lengths = [len(text.split()) for text in call.texts]
        if max(lengths) > MAX_CONTEXT:
            return _error(400, "a text is too long", "input")
        result = await self.engine.embed(call)
        # In another order than asked, and twice as long as agreed: both are allowed.
        data = [
            {"index": index, "embedding": [2 * value for value in vector]}
            for index, vector in reversed(list(enumerate(result.vectors)))
        ]
        reply: dict[str, Any] = {"object": "list", "data": data}
        if "trouble: no usage" not in call.texts[0]:
            reply["usage"] = {"prompt_tokens": result.usage.prompt_tokens, "total_tokens": 0}
        return web.json_response(reply)

    async def _accept(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.requests.append((request, body))
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            raise web.HTTPUnauthorized
        return body


def _call(body: dict[str, Any]) -> Generate:
    sampling = {
        name: body[name] for name in Sampling.__struct_fields__ if name in body and name != "logprobs"
    }
    messages = [Message(**message) for message in body["messages"]] if "messages" in body else None
    return Generate(
        request_id="r",
        model=body["model"],
        max_tokens=body["max_tokens"],
        deadline=time.time() + CHAT_S,
        messages=messages,
        prompt=body.get("prompt"),
        sampling=Sampling(**sampling),
        stream=body.get("stream", False),
    )


def _asked(body: dict[str, Any]) -> str:
    if "messages" in body:
        return str(body["messages"][-1].get("content"))
    return str(body["prompt"])


def _refusal(trouble: str, request: web.Request) -> web.Response | None:
    """The reply to a call that is refused before the engine sees it."""
    if trouble == "trouble: 401":
        return _error(401, f"incorrect API key: {KEY}")
    if trouble == "trouble: 429":
        return _error(429, f"quota of {KEY} is used up", headers={"Retry-After": "7"})
    if trouble == "trouble: 500":
        return _error(500, f"Traceback: {KEY}")
    if trouble == "trouble: 503":
        return _error(503, KEY, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    if trouble == "trouble: redirect":
        return web.Response(status=307, headers={"Location": str(request.url)})
    if trouble == "trouble: html":
        return web.Response(text="<html>hello</html>", content_type="text/html")
    if trouble == "trouble: cookie":
        return web.json_response({"choices": []}, headers={"Set-Cookie": "tenant=acme"})
    return None


async def _break_off(trouble: str, request: web.Request, response: web.StreamResponse) -> bool:
    if trouble == "trouble: cut":
        assert request.transport is not None
        request.transport.close()
        return True
    if trouble == "trouble: error in stream":
        await _send(response, {"error": {"message": f"over the quota of {KEY}", "code": 429}})
        return True
    if trouble == "trouble: garbage":
        await response.write(b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n')
    return False


async def _send(response: web.StreamResponse, payload: dict[str, Any]) -> None:
    # As its lines come and not as JSON likes them best: raw Unicode, in more than one packet.
    event = f"data: {json.dumps(payload, ensure_ascii=False)}\r\n\r\n".encode()
    await response.write(event[:11])
    await asyncio.sleep(0)
    await response.write(event[11:])


def _whole_choice(batch: Batch, index: int, *, chat: bool) -> dict[str, Any]:
    deltas = [event for event in batch if isinstance(event, Delta) and event.index == index]
    [finish] = [event for event in batch if isinstance(event, Finish) and event.index == index]
    text = "".join(delta.text for delta in deltas)
    told = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {"index": index, "finish_reason": finish.reason} | told


def _chunk_choice(event: Delta | Finish, *, chat: bool) -> dict[str, Any]:
    text = event.text if isinstance(event, Delta) else ""
    told = {"delta": {"content": text}} if chat else {"text": text}
    return {
        "index": event.index,
        "finish_reason": event.reason if isinstance(event, Finish) else None,
    } | told


def _usage(batch: Batch) -> dict[str, int]:
    usage = batch[-1]
    assert isinstance(usage, Usage)
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}


def _error(
    status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    error = {"message": message, "type": "error", "param": param, "code": status}
    return web.json_response({"error": error}, status=status, headers=headers)
