"""What names a session in each dialect reaches the pool, which keeps the calls of one together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from cluster.engines.fake import FakeEngine
from cluster.interface import Batch
from cluster.messages import Generate
from tests.serve_apps.conftest import CHAT, Start, chat_pool

ASK: list[Any] = [{"role": "user", "content": "hello"}]
CHATS, COMPLETIONS, RESPONSES, MESSAGES = (
    f"/v1/{path}" for path in ("chat/completions", "completions", "responses", "messages")
)


class Heard(FakeEngine):
    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[str] = []

    def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        self.sessions.append(call.session)
        return super().generate(call)


@pytest.mark.parametrize(
    ("path", "fields", "session"),
    [
        (CHATS, {"messages": ASK}, ""),
        (CHATS, {"messages": ASK, "user": "u"}, "u"),
        (CHATS, {"messages": ASK, "user": "u", "prompt_cache_key": "k"}, "k"),
        (CHATS, {"messages": ASK, "contextId": "c", "prompt_cache_key": "k"}, "c"),
        (COMPLETIONS, {"prompt": "hello", "user": "u"}, "u"),
        (COMPLETIONS, {"prompt": "hello", "user": "u", "prompt_cache_key": "k"}, "k"),
        (RESPONSES, {"input": "hello", "prompt_cache_key": "k"}, "k"),
        (RESPONSES, {"input": "hello", "safety_identifier": "i"}, "i"),
        (MESSAGES, {"messages": ASK, "max_tokens": 5}, ""),
        (MESSAGES, {"messages": ASK, "max_tokens": 5, "metadata": {"user_id": "u"}}, "u"),
    ],
)
async def test_a_session_is_what_the_caller_names(
    start: Start, path: str, fields: dict[str, Any], session: str
) -> None:
    engine = Heard()
    site = await start(pools={CHAT: chat_pool(engine)})
    answer = await site.http.post(path, json={"model": CHAT, **fields})
    assert answer.status_code == 200, answer.text
    assert engine.sessions == [session]


async def test_what_names_a_session_is_bounded(start: Start) -> None:
    site = await start()
    answer = await site.chat(prompt_cache_key="k" * 513)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt_cache_key"
