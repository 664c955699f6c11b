"""Tools, in every dialect: offered, called, answered, and refused where nobody would read the calls."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import anthropic
import openai
import pytest

from cluster.anthropic_wire import REFUSED
from cluster.config import AnthropicSpec, OpenAISpec
from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter, Rule
from cluster.interface import Batch, ModelInfo, Pool
from cluster.messages import Generate
from cluster.pools.local import LocalPool
from cluster.providers.pools import remote_pool
from cluster.tokens import ByteTokenCounter
from tests.serve_apps.conftest import CHAT, Site, Start, chat_pool

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
OPENAI_TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
ANTHROPIC_TOOL: Any = {"name": "get_weather", "input_schema": SCHEMA}
ASKED = "What is the weather in Oslo and Rome?"
CALLS = [
    {
        "id": f"call_{n}",
        "type": "function",
        "function": {"name": "get_weather", "arguments": f'{{"city":"{city}"}}'},
    }
    for n, city in enumerate(("Oslo", "Rome"))
]
SCRIPT = FakeScript(
    rules=[Rule(contains="weather in", tool_calls=CALLS), Rule(contains="Say it", reply="It rains in Oslo.")]
)


class Heard(FakeEngine):
    """Remembers the calls that reached it."""

    def __init__(self) -> None:
        super().__init__(SCRIPT)
        self.calls: list[Generate] = []

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        self.calls.append(call)
        async for batch in super().generate(call):
            yield batch


@pytest.fixture
def engine() -> Heard:
    return Heard()


Front = Callable[[], Any]


@pytest.fixture(params=["local", "openai", "anthropic"])
async def front(request: pytest.FixtureRequest, start: Start, engine: Heard) -> Any:
    """A gateway over the engine: by itself, or by another gateway that it reaches as a provider."""
    pools: Mapping[str, Pool] = {CHAT: chat_pool(engine)}
    inner = await start(pools=pools)
    if request.param == "local":
        yield inner
        return
    kind: Any = OpenAISpec if request.param == "openai" else AnthropicSpec
    spec = kind(
        name=CHAT, engine=request.param, base_url=f"{inner.url}/v1", api_key_env="K", max_context=4096
    )
    info = ModelInfo(CHAT, "generate", 4096, 32)
    pool: Any = remote_pool(spec, info, ByteTokenCounter(), {"K": inner.token})
    yield await start(pools={CHAT: pool})
    await pool.close()


def check_heard(engine: Heard) -> None:
    """What the engine read of the second turn: the calls, and a result for each of them."""
    turns = engine.calls[-1].messages or []
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "tool", "user"]
    made = turns[1].tool_calls or []
    assert [call["function"]["name"] for call in made] == ["get_weather"] * 2
    assert [json.loads(call["function"]["arguments"]) for call in made] == [
        {"city": "Oslo"},
        {"city": "Rome"},
    ]
    assert [turn.tool_call_id for turn in turns[2:4]] == [call["id"] for call in made]
    assert [turn.content for turn in turns[2:4]] == ["Rain.", "Sun."]


@pytest.mark.parametrize("streamed", [False, True])
async def test_with_openais_sdk(front: Site, engine: Heard, streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    given: Any = {"model": CHAT, "tools": [OPENAI_TOOL], "tool_choice": "auto"}
    if streamed:
        async with front.sdk.chat.completions.stream(messages=messages, **given) as events:
            completion = await events.get_final_completion()
    else:
        completion = await front.sdk.chat.completions.create(messages=messages, **given)
    [choice] = completion.choices
    assert choice.finish_reason == "tool_calls"
    made = choice.message.tool_calls or []
    assert [json.loads(call.function.arguments)["city"] for call in made] == ["Oslo", "Rome"]
    messages.append(choice.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
    for call in messages[-1]["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
        call.pop("index", None)
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": said}
        for call, said in zip(made, ("Rain.", "Sun."), strict=True)
    ]
    messages.append({"role": "user", "content": "Say it."})
    answer = await front.sdk.chat.completions.create(messages=messages, **given)
    assert answer.choices[0].message.content == "It rains in Oslo."
    check_heard(engine)
    assert engine.calls[-1].sampling.tools is not None


@pytest.mark.parametrize("streamed", [False, True])
async def test_with_anthropics_sdk(front: Site, engine: Heard, streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    given: Any = {"model": CHAT, "max_tokens": 32, "tools": [ANTHROPIC_TOOL]}
    if streamed:
        async with front.anthropic.messages.stream(messages=messages, **given) as events:
            message = await events.get_final_message()
    else:
        message = await front.anthropic.messages.create(messages=messages, **given)
    assert message.stop_reason == "tool_use"
    made = [block for block in message.content if block.type == "tool_use"]
    assert [block.input for block in made] == [{"city": "Oslo"}, {"city": "Rome"}]
    messages.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in made]})
    results: list[Any] = [
        {"type": "tool_result", "tool_use_id": block.id, "content": said}
        for block, said in zip(made, ("Rain.", "Sun."), strict=True)
    ]
    messages.append({"role": "user", "content": [*results, {"type": "text", "text": "Say it."}]})
    answer = await front.anthropic.messages.create(messages=messages, **given)
    assert [block.text for block in answer.content if block.type == "text"] == ["It rains in Oslo."]
    check_heard(engine)


async def test_a_remote_pools_usage_is_what_the_other_end_counted(front: Site) -> None:
    answer = await front.sdk.chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": "one two three"}], max_tokens=4
    )
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)
    assert (await front.settled()).tokens == 7


async def test_what_anthropics_api_has_no_word_for_is_refused_to_the_client_by_name(
    start: Start, engine: Heard
) -> None:
    spec = AnthropicSpec(name=CHAT, engine="anthropic", base_url="http://127.0.0.1:9/v1")
    pool = remote_pool(spec, ModelInfo(CHAT, "generate", 4096, 32), ByteTokenCounter(), {})
    site = await start(pools={CHAT: pool})
    assert "seed" in REFUSED
    for field, value in (("seed", 7), ("n", 2), ("logprobs", True)):
        refused = await site.chat(**{field: value})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)


@pytest.fixture
async def toolless(start: Start) -> Site:
    """Two models, one of which calls no tools."""
    engine = Heard()
    info = ModelInfo("plain", "generate", 200, 32, calls_tools=False)
    return await start(pools={CHAT: chat_pool(engine), "plain": LocalPool(info, engine, FakeTokenCounter())})


async def test_tools_are_not_offered_to_a_model_that_cannot_call_them(toolless: Site) -> None:
    said: list[Any] = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.BadRequestError, match=f"'plain' cannot call tools.*{CHAT} can") as refused:
        await toolless.sdk.chat.completions.create(model="plain", messages=said, tools=[OPENAI_TOOL])
    assert (refused.value.param, refused.value.code) == ("tools", "tools_not_supported")
    with pytest.raises(anthropic.BadRequestError, match=f"'plain' cannot call tools.*{CHAT} can"):
        await toolless.anthropic.messages.create(
            model="plain", messages=said, max_tokens=8, tools=[ANTHROPIC_TOOL]
        )
    with pytest.raises(openai.BadRequestError, match="cannot call tools"):
        await toolless.sdk.responses.create(
            model="plain",
            input="Hi",
            tools=[{"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}],
        )
    answer = await toolless.sdk.chat.completions.create(
        model="plain", messages=said, tools=[OPENAI_TOOL], tool_choice="none"
    )
    assert answer.choices[0].message.content


async def test_models_that_a_key_may_not_use_are_not_named_to_it(start: Start) -> None:
    engine = Heard()
    info = ModelInfo("plain", "generate", 200, 32, calls_tools=False)
    pools = {CHAT: chat_pool(engine), "plain": LocalPool(info, engine, FakeTokenCounter())}
    site = await start(pools=pools, models=["plain"])
    refused = await site.chat(model="plain", tools=[OPENAI_TOOL])
    assert refused.status_code == 400
    assert CHAT not in refused.text
