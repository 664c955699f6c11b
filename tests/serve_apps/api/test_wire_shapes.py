"""Every answer and every event of a stream is what the official SDK's own types say, and nothing beside."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Any, NamedTuple

import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList
from openai.types.shared import ErrorObject
from pydantic import BaseModel, Field, TypeAdapter

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.interface import Batch
from cluster.messages import Delta, Failure, Finish, Generate, Usage
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, embed_pool

CHATS, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
TOKEN = {"token": "so", "logprob": -0.5, "bytes": [115, 111]}
LOGPROBS = {"content": [{**TOKEN, "top_logprobs": [TOKEN]}], "refusal": None}
LEGACY = {"tokens": ["so"], "token_logprobs": [-0.5], "top_logprobs": [{"so": -0.5}], "text_offset": [0]}
CALLS = [
    {"id": f"call_{n}", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    for n in (1, 2)
]
SCRIPT = FakeScript(
    rules=[
        Rule(contains="weather", tool_calls=CALLS),
        Rule(contains="break", reply="one two", failure=Failure("EngineFailed", "secret"), failure_after=1),
    ]
)


class Engine(FakeEngine):
    """The fake, which also tells how likely its tokens are, and of cached ones."""

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        if not call.sampling.logprobs:
            async for batch in super().generate(call):
                yield batch
            return
        logprobs = LEGACY if call.messages is None else LOGPROBS
        said = [Delta("so", index, logprobs=logprobs) for index in range(call.sampling.n)]
        yield [*said, *(Finish("stop", index) for index in range(call.sampling.n)), Usage(4, 1, 2)]


@pytest.fixture
async def site(start: Start) -> Site:
    engine = Engine(SCRIPT)
    return await start(pools={CHAT: chat_pool(engine), EMBED: embed_pool(engine)})


class Asked(NamedTuple):
    path: str
    body: dict[str, Any]
    whole: Any
    """The SDK's type of the answer."""
    event: Any = None
    """And of each event where it is streamed."""


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": CHAT, "messages": [{"role": "user", "content": text}], **fields}


def response(said: str = "hello", /, **fields: Any) -> dict[str, Any]:
    return {"model": CHAT, "input": said, **fields}


TOOL = {"name": "weather", "description": "of a city", "parameters": {"type": "object"}, "strict": True}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
WANTED = {"name": "person", "schema": SCHEMA, "strict": True}
RESPONSE_TOOLS = {"tools": [{"type": "function", **TOOL}]}
FORCED = {"type": "function", "name": "weather"}
EVENT: TypeAdapter[Any] = TypeAdapter(Annotated[ResponseStreamEvent, Field(discriminator="type")])

TABLE = {
    "chat": Asked(CHATS, chat(), ChatCompletion, ChatCompletionChunk),
    "chat, several": Asked(CHATS, chat(n=3, max_tokens=2), ChatCompletion, ChatCompletionChunk),
    "chat, usage": Asked(CHATS, chat(), ChatCompletion, ChatCompletionChunk),
    "chat, tools": Asked(
        CHATS,
        chat("weather?", tools=[{"type": "function", "function": TOOL}], parallel_tool_calls=True),
        ChatCompletion,
        ChatCompletionChunk,
    ),
    "chat, logprobs": Asked(
        CHATS, chat(logprobs=True, top_logprobs=1, n=2), ChatCompletion, ChatCompletionChunk
    ),
    "chat, schema": Asked(
        CHATS,
        chat(response_format={"type": "json_schema", "json_schema": WANTED}),
        ChatCompletion,
        ChatCompletionChunk,
    ),
    "completion": Asked(COMPLETIONS, {"model": CHAT, "prompt": "once"}, Completion, Completion),
    "completion, several": Asked(
        COMPLETIONS,
        {"model": CHAT, "prompt": "once", "n": 2, "stop": ["x"], "seed": 7},
        Completion,
        Completion,
    ),
    "completion, logprobs": Asked(
        COMPLETIONS, {"model": CHAT, "prompt": "once", "logprobs": 1}, Completion, Completion
    ),
    "embeddings": Asked("/v1/embeddings", {"model": EMBED, "input": ["a", "b"]}, CreateEmbeddingResponse),
    "response": Asked(RESPONSES, response(metadata={"k": "v"}, user="me"), Response, EVENT),
    "response, cut": Asked(RESPONSES, response(max_output_tokens=2), Response, EVENT),
    "response, tools": Asked(
        RESPONSES, response("weather?", **RESPONSE_TOOLS, tool_choice=FORCED), Response, EVENT
    ),
    "response, logprobs": Asked(
        RESPONSES, response(include=["message.output_text.logprobs"], top_logprobs=1), Response, EVENT
    ),
    "response, schema": Asked(
        RESPONSES, response(text={"format": {"type": "json_schema", **WANTED}}), Response, EVENT
    ),
    "response, not stored": Asked(
        RESPONSES, response(store=False, temperature=0.5, instructions="Be kind."), Response, EVENT
    ),
}
OURS = {"store"}
"""What we say beside OpenAI's SDK: whether a response is stored, as OpenAI's API itself does."""


def check(kind: Any, told: dict[str, Any]) -> None:
    """It has the shape, all of it."""
    adapter: TypeAdapter[Any] = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    read = adapter.validate_python(told)
    assert set(_unknown(read)) <= OURS
    assert json.loads(read.model_dump_json(by_alias=True, exclude_unset=True)) == told


def _unknown(value: Any) -> Iterator[str]:
    """Fields that the SDK's type does not have, anywhere inside."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in value.model_fields_set:
            yield from _unknown(getattr(value, name))
    elif isinstance(value, list):
        for each in value:
            yield from _unknown(each)


def _finished(chunk: dict[str, Any]) -> dict[str, Any]:
    """OpenAI sends `null` until a completion has ended, which the SDK's type does not know."""
    for choice in chunk["choices"]:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    return chunk


def events_of(text: str) -> list[dict[str, Any]]:
    lines = (line for block in text.split("\n\n") for line in block.split("\n"))
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ") and line != "data: [DONE]"]


@pytest.mark.parametrize("name", TABLE)
async def test_whole(site: Site, name: str) -> None:
    asked = TABLE[name]
    answer = await site.http.post(asked.path, json=asked.body)
    assert answer.status_code == 200, answer.text
    check(asked.whole, answer.json())


@pytest.mark.parametrize("name", [name for name, asked in TABLE.items() if asked.event is not None])
async def test_streamed(site: Site, name: str) -> None:
    asked = TABLE[name]
    body = {**asked.body, "stream": True}
    if name.endswith("usage"):
        body["stream_options"] = {"include_usage": True}
    answer = await site.http.post(asked.path, json=body)
    assert answer.status_code == 200, answer.text
    events = events_of(answer.text)
    assert events
    for event in events:
        if asked.path == COMPLETIONS:
            event = _finished(event)
        check(asked.event, event)
        if asked.path == RESPONSES:
            assert f"event: {event['type']}\n" in answer.text


@pytest.mark.parametrize("path", [CHATS, COMPLETIONS])
async def test_a_stream_that_breaks_says_so_in_openais_shape(site: Site, path: str) -> None:
    body = chat("break") if path == CHATS else {"model": CHAT, "prompt": "break"}
    events = events_of((await site.http.post(path, json={**body, "stream": True})).text)
    check(ErrorObject, events[-1]["error"])


async def test_a_response_that_breaks_says_so_in_openais_shape(site: Site) -> None:
    events = events_of((await site.http.post(RESPONSES, json=response("break", stream=True))).text)
    for event in events:
        check(EVENT, event)
    assert events[-1]["type"] == "response.failed"


async def test_usage_holds_what_was_cached(site: Site) -> None:
    answer = await site.http.post(CHATS, json=chat(logprobs=True))
    usage = CompletionUsage.model_validate(answer.json()["usage"])
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 1, 5)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 2
    answer = await site.http.post(RESPONSES, json=response(include=["message.output_text.logprobs"]))
    told = answer.json()["usage"]
    assert (told["input_tokens"], told["input_tokens_details"]["cached_tokens"]) == (4, 2)


async def test_kept_responses_and_their_input(site: Site) -> None:
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
    ]
    calls = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    given = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hello to you"},
        {"role": "user", "content": parts},
        calls,
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ]
    made = (await site.http.post(RESPONSES, json={"model": CHAT, "input": given})).json()
    assert (await site.http.get(f"{RESPONSES}/{made['id']}")).json() == made
    check(ResponseItemList, (await site.http.get(f"{RESPONSES}/{made['id']}/input_items")).json())


async def test_models(site: Site) -> None:
    listed = (await site.http.get("/v1/models")).json()["data"]
    one = (await site.http.get(f"/v1/models/{CHAT}")).json()
    for told in (*listed, one):
        read = Model.model_validate(told)
        assert set(read.model_extra or ()) <= {"task", "max_context"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHATS, {"model": CHAT}, 400),
        ("POST", CHATS, chat(model="nobody"), 404),
        ("POST", COMPLETIONS, {"model": EMBED, "prompt": "x"}, 400),
        ("POST", RESPONSES, response(background=True), 400),
        ("POST", RESPONSES, response(previous_response_id="resp_1"), 404),
        ("GET", RESPONSES, None, 405),
        ("GET", f"{RESPONSES}/resp_1", None, 404),
        ("GET", "/v1/models/nobody", None, 404),
        ("GET", "/v1/nowhere", None, 404),
    ],
)
async def test_errors(site: Site, method: str, path: str, body: Any, status: int) -> None:
    answer = await site.http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    check(ErrorObject, answer.json()["error"])
