"""Nodes whose templates stand in prompt files: what is read, what is written back, and what is refused."""

import pytest

from graphs.errors import PipelineError
from graphs.known import Known
from graphs.loader import load
from graphs.nodes.prompt import Prompt
from graphs.prompts import Prompts, PromptVersion
from graphs.writer import to_yaml

OLD = PromptVersion("ask", "1.0.0", "Old: {{ question }}")
NEW = PromptVersion("ask", "1.1.0", "New: {{ question }}", labels=("stable",))
KNOWN = Known(prompts=Prompts([OLD, NEW]))

TEXT = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: used, version: 1.0.0}
inputs: {question: string}
nodes:
  say:
    prompt: {use: prompts/ask@stable}
    with: {question: "${inputs.question}"}
  answers:
    map:
      over: ["a"]
      as: word
      nodes:
        answer:
          llm: {model: small, prompt: prompts/ask@1.0.0}
          with: {question: "${say.text}"}
      outputs: {text: "${answer.text}"}
outputs: {texts: "${answers.text}"}
"""


def problems_of(text: str, known: Known = KNOWN):
    with pytest.raises(PipelineError) as refused:
        load(text, known=known)
    return refused.value.problems


def test_the_templates_are_those_of_the_files():
    pipeline = load(TEXT, known=KNOWN).pipeline
    say = pipeline.nodes["say"].spec
    answer = pipeline.nodes["answers"].bodies["body"].nodes["answer"].spec
    assert (say.template, say.use, say.version) == (NEW.template, "prompts/ask@stable", "1.1.0")
    assert (answer.prompt, answer.use, answer.version) == (OLD.template, "prompts/ask@1.0.0", "1.0.0")
    assert set(answer.inputs()) == {"question", "history"}


def test_the_references_are_written_back():
    pipeline = load(TEXT, known=KNOWN).pipeline
    written = to_yaml(pipeline)
    assert "use: prompts/ask@stable" in written
    assert "prompt: prompts/ask@1.0.0" in written
    assert "New:" not in written
    again = load(written, known=KNOWN).pipeline
    assert again == pipeline
    assert again.content_hash() == pipeline.content_hash()


def test_a_label_that_moves_makes_another_pipeline():
    moved = PromptVersion("ask", "1.2.0", "Newest: {{ question }}", labels=("stable",))
    other = load(TEXT, known=Known(prompts=Prompts([OLD, moved]))).pipeline
    assert other.content_hash() != load(TEXT, known=KNOWN).pipeline.content_hash()


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "hint"),
    [
        ("ask@stable", "asc@stable", "unknown-prompt", (7, 27), "did you mean ask?"),
        ("ask@stable", "ask@stabel", "unknown-prompt", (7, 31), "did you mean stable?"),
        ("ask@1.0.0", "ask@1.0.1", "unknown-prompt", (15, 51), "did you mean 1.0.0?"),
        ("prompts/ask@stable", "ask", "unknown-prompt", (7, 19), "write prompts/NAME, prompts/NAME@LABEL"),
        ("@stable}", "@stable, template: x}", "unknown-field", (7, 39), "leave one of them out"),
        ("{use: prompts/ask@stable}", "{}", "missing", (7, 5), None),
        (
            'with: {question: "${say.text}"}',
            'with: {qestion: "${say.text}"}',
            "missing-input",
            (14, 9),
            "did you",
        ),
    ],
)
def test_mistakes(old, new, code, place, hint):
    problems = [problem for problem in problems_of(TEXT.replace(old, new)) if problem.code == code]
    assert problems, problems_of(TEXT.replace(old, new))
    assert (problems[0].position.line, problems[0].position.column) == place
    assert problems[0].hint is None if hint is None else problems[0].hint.startswith(hint)


def test_an_unknown_prompt_is_one_mistake():
    assert len(problems_of(TEXT.replace("ask@stable", "asc"))) == 1


def test_where_no_prompts_are_known_it_says_so():
    problems = problems_of(TEXT, Known())
    assert [problem.code for problem in problems] == ["unknown-prompt"] * 2
    assert "prompts of the deploy config" in problems[0].hint


@pytest.mark.parametrize("field", ["version: 1.0.0", "template: a, version: b"])
def test_what_is_set_when_read_cannot_be_written(field):
    text = TEXT.replace("{use: prompts/ask@stable}", f"{{{field}}}")
    assert "unknown-field" in {problem.code for problem in problems_of(text)}


def test_a_name_that_was_never_looked_up_is_refused():
    (fault,) = Prompt(use="prompts/ask").faults()
    assert fault.code == "unknown-prompt"
