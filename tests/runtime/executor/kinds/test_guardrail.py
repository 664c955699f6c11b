"""`guardrail` nodes: what becomes of the text."""

import pytest

from graphs.builder import Builder
from graphs.loader import load
from graphs.nodes.guardrail import Guardrail
from graphs.ports import STRING
from runtime.errors import NodeError
from runtime.executor.kinds.registry import evaluator
from tests.runtime.parts import failed, finished, make_runner, request

TEXT = "Write to a@b.org, not to c@d.org; it is a secret"


def check(text: str, **settings):
    return evaluator(Guardrail(**settings))({"text": text})


def test_findings_are_replaced_and_told_by_kind():
    assert check(TEXT, words=("secret",)) == {
        "text": "Write to [email], not to [email]; it is a [word]",
        "flagged": True,
        "findings": ["email", "word"],
    }


def test_flag_leaves_the_text_as_it_is():
    assert check(TEXT, action="flag") == {"text": TEXT, "flagged": True, "findings": ["email"]}


def test_nothing_found():
    for action in ("redact", "flag", "refuse"):
        outputs = check("all is well", action=action)
        assert outputs == {"text": "all is well", "flagged": False, "findings": []}


@pytest.mark.parametrize(("action", "left"), [("redact", "abc"), ("flag", "abcde")])
def test_a_text_that_is_too_long(action, left):
    outputs = check("abcde", max_chars=3, action=action)
    assert outputs == {"text": left, "flagged": True, "findings": ["too_long"]}
    assert check("abc", max_chars=3, action=action)["flagged"] is False


def test_what_is_refused_is_named_by_kind_and_not_quoted():
    with pytest.raises(NodeError) as refused:
        check(TEXT, action="refuse", max_chars=30)
    assert refused.value.message == "the text was refused: email, too_long"
    assert refused.value.param == "text"


def guarded(action: str):
    b = Builder("guarded")
    guard = b.add("guard", Guardrail(action=action), text=b.input("question", STRING))
    b.output("text", guard["text"])
    return b.build()


async def test_in_a_run():
    pipeline = guarded("redact")
    end = await finished(make_runner(pipeline), request(pipeline, inputs={"question": "I am a@b.org"}))
    assert end.outputs == {"text": "I am [email]"}


async def test_a_refusal_ends_the_run_at_the_node():
    pipeline = guarded("refuse")
    end = await failed(make_runner(pipeline), request(pipeline, inputs={"question": "I am a@b.org"}))
    assert (end.node, end.failure.kind, end.failure.message) == (
        "guard",
        "NodeError",
        "the text was refused: email",
    )


async def test_what_is_said_in_place_of_a_refused_text():
    pipeline = load(
        """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: guarded}
inputs: {question: string}
nodes:
  guard:
    guardrail: {action: refuse}
    with: {text: "${inputs.question}"}
    fallback: [{value: Please leave that out.}]
outputs: {text: "${guard.text}", flagged: "${guard.flagged}"}
"""
    ).pipeline
    end = await finished(make_runner(pipeline), request(pipeline, inputs={"question": "I am a@b.org"}))
    assert end.outputs == {"text": "Please leave that out.", "flagged": True}
