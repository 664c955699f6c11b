"""The graphs that come with the package, run on scripted engines."""

import asyncio
import json
from pathlib import Path

import pytest

import graphs
from cluster.engines.fake import FakeScript, Rule
from graphs.known import Known
from graphs.loader import load_file
from graphs.prompt_files import load_prompts
from runtime.approvals.memory import MemoryApprovals
from runtime.approvals.model import Decision
from runtime.compiler.compile import compile_pipeline
from runtime.events import NodeFinished
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from serve_apps.cli.demo import DEMO_LIMITS
from tests.runtime.parts import Shelf, embedder, events_of, finished, generator, request

FOLDER = Path(graphs.__file__).parent / "library"
KNOWN = Known(prompts=load_prompts([FOLDER / "prompts"]))
WINDOW = 2048
"""Of the bundled model, in the quickstart."""


def pipeline(name: str):
    return load_file(FOLDER / f"{name}.yaml", KNOWN).pipeline


async def outputs(name: str, *rules: Rule, approvals: MemoryApprovals | None = None, **inputs):
    made = pipeline(name)
    models = {"smollm2": generator("smollm2", FakeScript(list(rules)), WINDOW), "minilm": embedder("minilm")}
    runner = Runner([compile_pipeline(made)], Resources(models, {"manual": Shelf()}, approvals=approvals))
    return (await finished(runner, request(made, inputs=inputs))).outputs


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_demo_key_can_run_each_twice_a_minute(file):
    plan = compile_pipeline(pipeline(file.stem))
    assert 0 < plan.token_bound * 2 <= DEMO_LIMITS.tokens_per_minute


async def test_summarise():
    rules = [
        Rule("two sentences", reply="All of it."),
        Rule("about cats", reply="Cats."),
        Rule("about dogs", reply="Dogs."),
    ]
    made = await outputs("summarise", *rules, parts=["A text about dogs.", "A text about cats."])
    assert made == {"text": "All of it.", "summaries": ["Dogs.", "Cats."]}


@pytest.mark.parametrize(
    ("question", "choice"),
    [("What is the capital of France?", "small"), ("Compare both step by step", "large")],
)
async def test_assistant(question, choice):
    made = await outputs("assistant", Rule(question, reply="So it is."), question=question)
    assert made == {"text": "So it is.", "choice": choice}


@pytest.mark.parametrize(
    ("text", "label"),
    [("I love it, thank you", "positive"), ("I want my money back", "negative"), ("a date", "neutral")],
)
async def test_sentiment(text, label):
    assert (await outputs("sentiment", text=text))["label"] == label


async def test_translate():
    rules = [
        Rule("from English into French", reply="le chat dort"),
        Rule("from French into English", reply="the cat sleeps"),
    ]
    made = await outputs("translate", *rules, text="the cat sleeps")
    assert (made["text"], made["back"]) == ("le chat dort", "the cat sleeps")
    assert made["nearness"] == pytest.approx(1)


async def test_bilingual_translates_while_it_answers():
    second = "Dogs bark " + "and bark " * 15 + "on."
    rules = [
        Rule("two facts", reply=f"Cats sleep. {second}"),
        Rule("Cats sleep.", reply="Les chats dorment."),
        Rule("Dogs bark", reply="Les chiens aboient."),
    ]
    made = pipeline("bilingual")
    models = {"smollm2": generator("smollm2", FakeScript(rules, token_s=0.01), WINDOW)}
    runner = Runner([compile_pipeline(made)], Resources(models))
    events = await events_of(runner, request(made, inputs={"question": "Tell two facts"}))
    assert events[-1].outputs == {
        "text": f"Cats sleep. {second}",
        "sentences": ["Cats sleep. ", second],
        "translations": ["Les chats dorment.", "Les chiens aboient."],
    }
    told = [(type(event), getattr(event, "node", "")) for event in events]
    first = next(at for at, (_, node) in enumerate(told) if node.startswith("translation[0]"))
    assert first < told.index((NodeFinished, "answer"))


async def test_researcher():
    made = await outputs("researcher", question="How do I create a key?")
    assert made["text"]
    assert len(made["steps"]) <= 3


async def test_researcher_keeps_what_it_wrote_of_a_long_answer():
    long = '{"answer": "' + "word " * 500
    made = await outputs("researcher", Rule("create", reply=long), question="How do I create a key?")
    assert made["text"].startswith("word word")
    assert made["steps"] == []


async def test_extract():
    ticket = {"customer": "Ada", "subject": "Invoice", "category": "billing", "urgent": True}
    made = await outputs("extract", Rule("invoice", reply=json.dumps(ticket)), message="My invoice is wrong")
    assert made == {"ticket": ticket}


async def test_moderate_passes_what_is_fine():
    text = "thanks, an answer"
    assert await outputs("moderate", text=text) == {
        "text": text,
        "tone": "fine",
        "findings": [],
        "approved": None,
    }


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (Decision(True), "write to [email]"),
        (Decision(False), None),
        (Decision(True, value="write to me"), "write to me"),
    ],
)
async def test_moderate_does_what_a_person_says(decision, text):
    approvals = MemoryApprovals()
    made, _ = await asyncio.gather(
        outputs("moderate", approvals=approvals, text="write to ada@example.com"),
        approvals.decide("", "run-1", "review", decision),
    )
    assert (made["text"], made["findings"], made["approved"]) == (text, ["email"], decision.approved)


async def test_moderate_asks_of_what_is_harmful():
    approvals = MemoryApprovals()
    made, _ = await asyncio.gather(
        outputs("moderate", approvals=approvals, text="I will hurt you, stupid"),
        approvals.decide("", "run-1", "review", Decision(False)),
    )
    assert (made["text"], made["tone"], made["approved"]) == (None, "harmful", False)
