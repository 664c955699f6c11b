"""What a `classify` node says of itself."""

from graphs.errors import PipelineError
from graphs.loader import load
from graphs.nodes.classify import Classify
from graphs.nodes.spec import TokenBound
from graphs.ports import NUMBER, STRING, optional

LABELS = {"good": "the writer is content", "bad": "the writer complains"}
FILE = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: mood}
inputs: {review: string}
nodes:
  mood:
    classify:
      model: minilm
      labels: LABELS
    with: {text: "${inputs.review}"}
outputs: {label: "${mood.label}", sure: "${mood.confidence}"}
"""


def test_what_it_is():
    spec = Classify(model="m", labels=LABELS, max_prompt_tokens=50)
    assert spec.outputs({}) == {"label": STRING, "confidence": optional(NUMBER)}
    assert spec.effects == "idempotent"
    assert spec.tokens == TokenBound(50, 30)
    assert spec.stand_in("good") == {"label": "good", "confidence": None}


def test_it_is_read():
    loaded = load(FILE.replace("LABELS", "{good: the writer is content, bad: the writer complains}"))
    assert loaded.pipeline.nodes["mood"].spec == Classify(model="minilm", labels=LABELS)
    assert loaded.warnings == []


def test_one_label_is_no_choice():
    try:
        load(FILE.replace("LABELS", "{good: x}"))
    except PipelineError as refused:
        (problem,) = refused.problems
    assert (problem.code, problem.position.line) == ("bad-value", 9)
    assert "length >= 2" in problem.message
