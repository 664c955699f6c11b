"""`classify` nodes in whole runs."""

from graphs.builder import Builder
from graphs.nodes.classify import Classify
from graphs.ports import STRING
from tests.runtime.parts import finished, make_runner, request

LABELS = {"good": "the writer likes it", "bad": "the writer is angry"}


def mood(model: str):
    b = Builder("mood")
    node = b.add("mood", Classify(model=model, labels=LABELS), text=b.input("question", STRING))
    b.output("label", node["label"])
    b.output("confidence", node["confidence"])
    return b.build()


async def test_with_a_model_that_generates():
    pipeline = mood("small")
    end = await finished(make_runner(pipeline), request(pipeline))
    assert end.outputs == {"label": "good", "confidence": None}
    assert end.usage.completion_tokens == 2


async def test_with_a_model_that_embeds():
    pipeline = mood("embedder")
    end = await finished(make_runner(pipeline), request(pipeline, inputs={"question": "I am angry"}))
    assert end.outputs["label"] == "bad"
    assert 0 < end.outputs["confidence"] < 1
