"""OpenAI's Responses as the official SDK sees them: made, streamed, kept, continued and forgotten."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import openai
import pytest

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.interface import Batch, Pool
from cluster.messages import Failure, Generate
from serve_apps.gateway.limits import Limits
from tests.serve_apps.api.test_graphs import start_helper
from tests.serve_apps.conftest import CHAT, DEFAULT_MAX_TOKENS, EMBED, MAX_CONTEXT, Site, Start, chat_pool

WEATHER: list[Any] = [
    {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
]
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
]
SCRIPT = FakeScript(
    rules=[
        Rule(contains="capital of France", reply="The capital of France is Paris."),
        Rule(contains="weather", tool_calls=CALLS),
        Rule(
            contains="break",
            reply="half an answer",
            failure=Failure("EngineFailed", "secret"),
            failure_after=2,
        ),
        Rule(contains="never", failure=Failure("EngineFailed", "secret")),
    ]
)
UNKNOWN = "resp_" + "0" * 32


class Heard(FakeEngine):
    """An engine, and the calls that reached it."""

    def __init__(self, script: FakeScript) -> None:
        super().__init__(script)
        self.calls: list[Generate] = []

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        self.calls.append(call)
        async for batch in super().generate(call):
            yield batch

    def pools(self) -> dict[str, Pool]:
        return {CHAT: chat_pool(self)}

    def said(self) -> list[tuple[str, Any]]:
        """Roles and texts of the last call."""
        return [(message.role, message.content) for message in self.calls[-1].messages or ()]


async def test_a_response(start: Start) -> None:
    site = await start(SCRIPT)
    response = await site.sdk.responses.create(
        model=CHAT, input="What is the capital of France?", instructions="Be brief.", metadata={"k": "v"}
    )
    assert response.status == "completed"
    assert response.output_text == "The capital of France is Paris."
    assert response.instructions == "Be brief."
    assert response.metadata == {"k": "v"}
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (8, 6)
    assert response.usage.input_tokens_details.cached_tokens == 0
    assert (await site.settled()).tokens == response.usage.total_tokens == 14


async def test_streamed_events(start: Start) -> None:
    site = await start(SCRIPT)
    stream = await site.sdk.responses.create(model=CHAT, input="What is the capital of France?", stream=True)
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 6,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert said == last.response.output_text == "The capital of France is Paris."
    assert last.response.usage is not None
    assert (await site.settled()).tokens == last.response.usage.total_tokens
    assert await site.sdk.responses.retrieve(last.response.id) == last.response


async def test_streamed_calls_of_functions(start: Start) -> None:
    site = await start(SCRIPT)
    stream = await site.sdk.responses.create(model=CHAT, input="The weather?", tools=WEATHER, stream=True)
    events = [event async for event in stream]
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [event.arguments for event in done] == ['{"city": "Paris"}', '{"city": "Rome"}']
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == '{"city": "Paris"}{"city": "Rome"}'
    added = [event.item for event in events if event.type == "response.output_item.added"]
    assert [(item.type, item.arguments) for item in added if item.type == "function_call"] == [
        ("function_call", ""),
        ("function_call", ""),
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert [item.call_id for item in last.response.output if item.type == "function_call"] == [
        "call_1",
        "call_2",
    ]


async def test_the_sdk_puts_a_streamed_response_together(start: Start) -> None:
    site = await start(SCRIPT)
    async with site.sdk.responses.stream(model=CHAT, input="What is the capital of France?") as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert final.output_text == "The capital of France is Paris."


async def test_a_conversation_goes_on(start: Start) -> None:
    engine = Heard(SCRIPT)
    site = await start(pools=engine.pools())
    first = await site.sdk.responses.create(
        model=CHAT, input="What is the capital of France?", instructions="Be brief."
    )
    second = await site.sdk.responses.create(
        model=CHAT, input="And of Italy?", previous_response_id=first.id, store=False
    )
    assert second.previous_response_id == first.id
    assert engine.said() == [
        ("user", "What is the capital of France?"),
        ("assistant", "The capital of France is Paris."),
        ("user", "And of Italy?"),
    ]
    with pytest.raises(openai.NotFoundError):
        await site.sdk.responses.retrieve(second.id)


async def test_outputs_of_functions_find_their_calls(start: Start) -> None:
    engine = Heard(SCRIPT)
    site = await start(pools=engine.pools())
    first = await site.sdk.responses.create(model=CHAT, input="The weather?", tools=WEATHER)
    outputs: list[Any] = [
        {"type": "function_call_output", "call_id": f"call_{n}", "output": "sunny"} for n in (1, 2)
    ]
    await site.sdk.responses.create(
        model=CHAT, input=outputs, previous_response_id=first.id, tools=WEATHER, tool_choice="none"
    )
    asked = engine.calls[-1].messages or []
    assert [message.role for message in asked] == ["user", "assistant", "tool", "tool"]
    assert asked[1].tool_calls == CALLS
    assert (asked[2].tool_call_id, asked[2].content) == ("call_1", "sunny")


async def test_what_was_told_may_be_sent_again_as_input(start: Start) -> None:
    """How those keep a conversation who store nothing here."""
    engine = Heard(SCRIPT)
    site = await start(pools=engine.pools())
    first = await site.sdk.responses.create(model=CHAT, input="The weather?", tools=WEATHER, store=False)
    again: list[Any] = [
        {"role": "user", "content": "The weather?"},
        *first.output,
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ]
    second = await site.sdk.responses.create(model=CHAT, input=again, store=False)
    assert [message.tool_calls for message in engine.calls[-1].messages or []] == [None, CALLS, None]
    again += second.output
    again += [{"role": "user", "content": [{"type": "input_text", "text": "So?"}]}]
    await site.sdk.responses.create(model=CHAT, input=again, store=False)
    assert engine.said()[-1] == ("user", "So?")


async def test_the_input_is_kept_as_items(start: Start) -> None:
    site = await start(SCRIPT)
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
    ]
    given: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": parts}]
    response = await site.sdk.responses.create(model=CHAT, input=given)
    newest = await site.sdk.responses.input_items.list(response.id, limit=1)
    assert [item.type for item in newest.data] == ["message"]
    assert newest.has_more
    oldest = [item async for item in site.sdk.responses.input_items.list(response.id, order="asc", limit=1)]
    assert [item.role for item in oldest if item.type == "message"] == ["system", "user"]
    assert len({item.id for item in oldest}) == 2


async def test_a_response_is_forgotten(site: Site) -> None:
    response = await site.sdk.responses.create(model=CHAT, input="Hello")
    await site.sdk.responses.delete(response.id)
    for path in ("", "/input_items"):
        assert (await site.http.get(f"/v1/responses/{response.id}{path}")).status_code == 404
    assert (await site.http.delete(f"/v1/responses/{response.id}")).status_code == 404
    with pytest.raises(openai.NotFoundError) as caught:
        await site.sdk.responses.create(model=CHAT, input="Go on", previous_response_id=response.id)
    assert caught.value.code == "previous_response_not_found"


async def test_another_tenants_response_is_as_none(site: Site) -> None:
    response = await site.sdk.responses.create(model=CHAT, input="My secret")
    token, _ = await site.deps.keys.create("rival", "spy")
    spy = {"authorization": f"Bearer {token}"}
    for method, path in (("GET", ""), ("GET", "/input_items"), ("DELETE", ""), ("POST", "/cancel")):
        answers = []
        for response_id in (response.id, UNKNOWN):
            answer = await site.http.request(method, f"/v1/responses/{response_id}{path}", headers=spy)
            answers.append((answer.status_code, answer.text.replace(response_id, "ID")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
    body = {"model": CHAT, "input": "Go on", "previous_response_id": response.id}
    answer = await site.http.post("/v1/responses", json=body, headers=spy)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "previous_response_id")
    assert await site.sdk.responses.retrieve(response.id) == response


async def test_a_key_sees_only_responses_of_models_that_it_may_use(site: Site) -> None:
    response = await site.sdk.responses.create(model=CHAT, input="My secret")
    token, _ = await site.deps.keys.create("acme", "narrow", models=[EMBED])
    headers = {"authorization": f"Bearer {token}"}
    assert (await site.http.get(f"/v1/responses/{response.id}", headers=headers)).status_code == 404


async def test_an_upstream_that_breaks_ends_in_response_failed(start: Start) -> None:
    site = await start(SCRIPT)
    stream = await site.sdk.responses.create(model=CHAT, input="break", stream=True)
    events = [event async for event in stream]
    last = events[-1]
    assert last.type == "response.failed"
    assert last.sequence_number == len(events) - 1
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert last.response.error.code == "server_error"
    assert "secret" not in last.to_json()
    assert (await site.http.get(f"/v1/responses/{last.response.id}")).status_code == 404
    with pytest.raises(openai.InternalServerError):
        await site.sdk.responses.create(model=CHAT, input="never", stream=True)


async def test_a_response_that_is_cut_is_incomplete(site: Site) -> None:
    response = await site.sdk.responses.create(model=CHAT, input="Hello", max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    stream = await site.sdk.responses.create(model=CHAT, input="Hello", max_output_tokens=3, stream=True)
    assert [event.type async for event in stream][-1] == "response.incomplete"


async def test_json_that_meets_a_schema(site: Site) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    response = await site.sdk.responses.create(
        model=CHAT,
        input="How old?",
        text={"format": {"type": "json_schema", "name": "person", "schema": schema, "strict": True}},
    )
    assert isinstance(json.loads(response.output_text)["age"], int)


async def test_a_graph_responds_and_goes_on(start: Start) -> None:
    site = await start_helper(start)
    first = await site.sdk.responses.create(model="graph/helper", input="Is it so?")
    assert first.output_text == "In a kind way: yes."
    stream = await site.sdk.responses.create(
        model="graph/helper", input="Really?", previous_response_id=first.id, stream=True
    )
    events = [event async for event in stream]
    assert events[-1].type == "response.completed"
    with pytest.raises(openai.BadRequestError) as caught:
        await site.sdk.responses.create(model="graph/helper", input="Is it so?", temperature=0.5)
    assert caught.value.param == "temperature"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"role": "user", "content": "x", "arguments": "{}"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x/"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"truncation": "auto"}, "truncation"),
        ({"stream_options": {}}, "stream_options"),
        ({"metadata": {"k": "v" * 600}}, "metadata"),
        ({"priority": 0}, "priority"),
        ({"max_output_tokens": MAX_CONTEXT}, "input"),
        ({"input": "word " * MAX_CONTEXT}, "input"),
    ],
)
async def test_what_a_response_cannot(site: Site, fields: dict[str, Any], param: str) -> None:
    answer = await site.http.post("/v1/responses", json={"model": CHAT, "input": "Hello", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


async def test_only_what_is_in_the_background_can_be_cancelled(site: Site) -> None:
    response = await site.sdk.responses.create(model=CHAT, input="Hello")
    with pytest.raises(openai.BadRequestError) as caught:
        await site.sdk.responses.cancel(response.id)
    assert caught.value.code == "response_not_cancellable"


async def test_a_response_reserves_what_the_conversation_comes_to(start: Start) -> None:
    site = await start(SCRIPT, limits=Limits(tokens_per_minute=DEFAULT_MAX_TOKENS + 30))
    first = await site.sdk.responses.create(model=CHAT, input="What is the capital of France?")
    await site.settled()
    again = site.sdk.responses.create(
        model=CHAT,
        input="word " * 20,
        previous_response_id=first.id,
        max_output_tokens=DEFAULT_MAX_TOKENS,
    )
    with pytest.raises(openai.RateLimitError):
        await again
