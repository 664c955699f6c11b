"""What a guardrail keeps back no dialect tells: neither whole nor streamed, nor to an Anthropic SDK."""

from __future__ import annotations

import json

import pytest

from cluster.engines.fake import FakeScript, Rule
from tests.serve_apps.api.test_graphs import start_helper
from tests.serve_apps.conftest import Start

PIPELINE = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: helper, version: 1.0.0, description: Answers without addresses}
inputs: {question: {type: string, maxLength: 80}}
nodes:
  check:
    guardrail: {pii: [email], words: [project x], action: ACTION}
    with: {text: "${inputs.question}"}
  answer:
    llm: {model: tiny-chat, max_tokens: 20, max_prompt_tokens: 100, stream: true}
    with: {prompt: "${check.text}"}
  guard:
    guardrail: {pii: [email], words: [project x], action: ACTION}
    with: {text: "${answer.text}"}
outputs: {text: "${guard.text}"}
chat: {input: question, output: text}
"""
SECRET = "boss@corp.example"
SCRIPT = FakeScript(
    rules=[
        Rule(contains=SECRET, reply="the model saw it"),
        Rule(contains="who", reply=f"Write to {SECRET} today."),
        Rule(contains="[email]", reply="I see no address."),
    ],
    tokens_per_batch=1,
)
ASKED = "who leads project x?"
BODIES = {
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/v1/responses": lambda text: {"input": text},
    "/v1/messages": lambda text: {"max_tokens": 32, "messages": [{"role": "user", "content": text}]},
}
of_every_dialect = pytest.mark.parametrize("path", BODIES)
in_both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def _said(text: str) -> str:
    """All texts in an answer or in its events, joined: a stream may cut a word anywhere."""
    found: list[str] = []

    def look(value: object) -> None:
        if isinstance(value, dict):
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)
        elif isinstance(value, str):
            found.append(value)

    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    for line in lines or [text]:
        look(json.loads(line))
    return " ".join(found) + "".join(found)


@of_every_dialect
@in_both_ways
async def test_what_is_redacted_is_not_told(start: Start, path: str, streamed: bool) -> None:
    site = await start_helper(start, SCRIPT, PIPELINE.replace("ACTION", "redact"))
    body = {"model": "graph/helper", "stream": streamed, **BODIES[path](ASKED)}
    answer = await site.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["content-type"].startswith("text/event-stream")) is streamed
    assert "[email]" in _said(answer.text)
    assert "corp" not in answer.text
    assert SECRET not in _said(answer.text)


@of_every_dialect
@in_both_ways
async def test_what_is_refused_is_an_error_and_not_quoted(start: Start, path: str, streamed: bool) -> None:
    site = await start_helper(start, SCRIPT, PIPELINE.replace("ACTION", "refuse"))
    body = {"model": "graph/helper", "stream": streamed, **BODIES[path]("who is it?")}
    answer = await site.http.post(path, json=body)
    assert "email" in answer.text
    assert "error" in answer.text
    assert "corp" not in answer.text
    assert not any(end in answer.text for end in ("[DONE]", "response.completed", "message_stop"))
    if not streamed:
        assert answer.status_code == 422


@of_every_dialect
@in_both_ways
async def test_the_model_does_not_see_what_the_question_may_not_say(
    start: Start, path: str, streamed: bool
) -> None:
    site = await start_helper(start, SCRIPT, PIPELINE.replace("ACTION", "redact"))
    body = {"model": "graph/helper", "stream": streamed, **BODIES[path](f"Do you know {SECRET}?")}
    answer = await site.http.post(path, json=body)
    assert "I see no address." in _said(answer.text).replace("  ", " ")
    assert "the model saw it" not in _said(answer.text)
