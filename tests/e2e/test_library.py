"""The graphs that come with the package, each through the gateway: what they promise of an answer's form.

How good the answers are is not asked: the bundled model is small.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.e2e.system import ANSWER_TIMEOUT_S, REPOSITORY, RunningSystem

PARTS = [
    "The gateway checks a key, reserves its tokens, and only then calls a model.",
    "A pool has replicas of one model. The router sends a call to the one with the least work.",
    "A graph is compiled once. Its plan says what runs where, and what may run at the same time.",
]
TICKET = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 40},
        "subject": {"type": "string", "maxLength": 80},
        "category": {"enum": ["billing", "bug", "question", "other"]},
        "urgent": {"type": "boolean"},
    },
    "required": ["customer", "subject", "category", "urgent"],
    "additionalProperties": False,
}


def run(system: RunningSystem, graph: str, **inputs: Any) -> dict[str, Any]:
    """The outputs of a run, and that it used tokens."""
    headers = {"authorization": f"Bearer {system.key()[0]}"}
    body = {"inputs": inputs}
    reply = httpx.post(
        f"{system.url}/v1/graphs/{graph}/runs", json=body, headers=headers, timeout=ANSWER_TIMEOUT_S
    )
    assert reply.status_code == 200, reply.text
    finished = reply.json()
    assert finished["usage"]["prompt_tokens"] > 0
    outputs: dict[str, Any] = finished["outputs"]
    return outputs


def test_the_whole_library_is_deployed(system: RunningSystem) -> None:
    library = {file.stem for file in (REPOSITORY / "graphs" / "library").glob("*.yaml")}
    assert len(library) == 9
    assert {Path(graph).stem for graph in system.settings.graphs} == library


def test_summarise_gives_one_summary_of_each_part_and_one_of_all(system: RunningSystem) -> None:
    outputs = run(system, "summarise", parts=PARTS)
    assert len(outputs["summaries"]) == len(PARTS)
    assert all(summary.strip() for summary in outputs["summaries"])
    assert outputs["text"].strip()


@pytest.mark.parametrize(
    ("question", "choice"),
    [("What is the capital of France?", "small"), ("Explain step by step why the sky is blue", "large")],
)
def test_assistant_chooses_by_difficulty(system: RunningSystem, question: str, choice: str) -> None:
    outputs = run(system, "assistant", question=question)
    assert outputs["choice"] == choice
    assert outputs["text"].strip()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Great, it works well, thank you!", "positive"),
        ("It is broken and slow. I want my money back.", "negative"),
    ],
)
def test_sentiment_is_one_of_its_labels(system: RunningSystem, text: str, label: str) -> None:
    outputs = run(system, "sentiment", text=text)
    assert outputs["label"] == label
    assert isinstance(outputs["confidence"], float)


def test_sentiment_is_a_model_too(system: RunningSystem) -> None:
    said = [{"role": "user", "content": "Thank you, this is great and friendly."}]
    reply = system.client().chat.completions.create(model="graph/sentiment", messages=said)  # type: ignore[arg-type]
    assert reply.choices[0].message.content == "positive"


def test_translate_says_how_near_the_way_back_leads(system: RunningSystem) -> None:
    outputs = run(system, "translate", text="The weather is nice today.", target="German")
    assert outputs["text"].strip()
    assert outputs["back"].strip()
    assert -1 <= outputs["nearness"] <= 1


def test_researcher_answers_within_its_steps(system: RunningSystem) -> None:
    outputs = run(system, "researcher", question="How do I create an API key?")
    assert outputs["text"].strip()
    assert len(outputs["steps"]) <= 3


def test_extract_fits_its_schema(system: RunningSystem) -> None:
    message = "Hi, this is Ada Byron. The invoice of May is wrong, please correct it today!"
    outputs = run(system, "extract", message=message)
    assert Draft202012Validator(TICKET).is_valid(outputs["ticket"]), outputs


def test_moderate_passes_what_is_fine(system: RunningSystem) -> None:
    text = "Thanks, this is an answer to my question."
    outputs = run(system, "moderate", text=text)
    assert outputs == {"text": text, "tone": "fine", "findings": [], "approved": None}


def _asked(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """What a run asks."""
    reply = client.get(path)
    assert reply.status_code == 200, reply.text
    waiting: list[dict[str, Any]] = reply.json()["data"]
    return waiting


@pytest.mark.parametrize("approved", [True, False])
def test_moderate_asks_a_person_where_something_was_found(system: RunningSystem, approved: bool) -> None:
    body = {"inputs": {"text": "Write to me: ada@example.com"}, "stream": True}
    headers = {"authorization": f"Bearer {system.demo_key}"}
    with httpx.Client(base_url=system.url, headers=headers, timeout=ANSWER_TIMEOUT_S) as client:
        last: dict[str, Any] = {}
        with client.stream("POST", "/v1/graphs/moderate/runs", json=body) as reply:
            asked = f"/v1/runs/{reply.headers['x-run-id']}/approvals"
            for line in reply.iter_lines():
                if not line.startswith("data: {"):
                    continue
                last = json.loads(line[6:])
                if last["type"] == "node_waiting":
                    (waiting,) = _asked(client, asked)
                    assert "ada@" not in json.dumps(waiting)
                    decided = client.post(f"{asked}/review", json={"approved": approved})
                    assert decided.status_code == 200, decided.text
    assert last["type"] == "run_finished", last
    outputs = last["outputs"]
    assert outputs["findings"] == ["email"]
    assert outputs["approved"] is approved
    assert (outputs["text"] is not None) is approved
