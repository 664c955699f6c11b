"""Files of prompts: what is read, and every mistake with its place."""

import pytest

from graphs.errors import PipelineError
from graphs.prompt_files import is_prompt, load_prompt, load_prompts
from graphs.prompts import PromptVersion

GOOD = """\
apiVersion: clustergraph/v1
kind: Prompt
metadata: {name: answer, version: 1.2.0}
description: Answers from passages
labels: [stable]
template: |
  {{ passages }}
  Question: {{ question }}
"""


def problems_of(text: str):
    with pytest.raises(PipelineError) as refused:
        load_prompt(text, "answer.yaml")
    return refused.value.problems


def test_a_prompt_is_read():
    template = "{{ passages }}\nQuestion: {{ question }}\n"
    assert load_prompt(GOOD) == PromptVersion(
        "answer", "1.2.0", template, ("stable",), "Answers from passages"
    )


def test_what_is_a_prompt():
    assert is_prompt(GOOD)
    assert not is_prompt(GOOD.replace("kind: Prompt", "kind: Pipeline"))
    assert not is_prompt("- kind: Prompt")
    assert not is_prompt("{")


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "hint"),
    [
        ("clustergraph/v1", "clustergraph/v2", "bad-value", (1, 13), None),
        ("1.2.0", "1.2", "bad-value", (3, 35), None),
        ("1.2.0", "'1 2'", "bad-value", (3, 35), None),
        ("name: answer", "name: inputs", "bad-name", (3, 18), None),
        ("{name: answer, version: 1.2.0}", "{name: answer}", "missing", (3, 1), None),
        ("{name: answer, version: 1.2.0}", "answer", "bad-value", (3, 11), None),
        ("metadata: {name: answer, version: 1.2.0}\n", "", "missing", (1, 1), None),
        ("labels:", "label:", "unknown-field", (5, 1), "did you mean labels?"),
        ("version:", "versoin:", "unknown-field", (3, 26), "did you mean version?"),
        ("[stable]", "stable", "bad-value", (5, 9), None),
        ("[stable]", "[a b]", "bad-value", (5, 9), None),
        ("{{ question }}", "{{ question | upr }}", "bad-template", (8, 27), "did you mean upper?"),
        ("{{ passages }}", "{{ passages() }}", "bad-template", (7, 3), None),
    ],
)
def test_mistakes(old, new, code, place, hint):
    text = GOOD.replace(old, new)
    found = [problem for problem in problems_of(text) if problem.code == code]
    assert found, problems_of(text)
    assert (found[0].position.line, found[0].position.column) == place
    assert found[0].file == "answer.yaml"
    assert found[0].hint == hint


@pytest.mark.parametrize(
    ("text", "code"), [("", "empty"), ("- a", "bad-value"), ("a: [", "bad-yaml"), ("a: &b 1", "alias")]
)
def test_what_is_no_prompt_at_all(text, code):
    assert problems_of(text)[0].code == code


def test_every_mistake_is_reported_at_once():
    text = GOOD.replace("1.2.0", "true").replace("labels", "lables").replace("}}\n", "| nope }}\n")
    assert [problem.code for problem in problems_of(text)] == [
        "bad-value",
        "unknown-field",
        "bad-template",
        "bad-template",
    ]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "answer.yaml").write_text(GOOD)
    (tmp_path / "answer-next.yaml").write_text(GOOD.replace("1.2.0", "1.3.0").replace("stable", "next"))
    (tmp_path / "notes.txt").write_text("not read")
    return tmp_path


def test_folders_and_files_make_a_library(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "expand.yaml"
    other.write_text(GOOD.replace("answer", "expand"))
    prompts = load_prompts([folder, other])
    assert prompts.find("prompts/answer").version == "1.2.0"
    assert prompts.find("prompts/answer@next").version == "1.3.0"
    assert prompts.find("prompts/expand").name == "expand"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("1.2.0", "1.3.0", 3),
        ("[stable]", "[next]", 5),
        ("[stable]", "[stable, stable]", 5),
        ("stable", "1.2.0", 5),
    ],
)
def test_a_version_or_label_is_said_once(folder, old, new, line):
    (folder / "answer.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(PipelineError) as refused:
        load_prompts([folder])
    (problem,) = refused.value.problems
    assert problem.code == "duplicate"
    assert problem.position.line == line
    assert problem.file == str(folder / "answer.yaml")


def test_mistakes_of_all_files_are_reported(folder):
    (folder / "answer.yaml").write_text("kind: Prompt")
    (folder / "bytes.yaml").write_bytes(b"ok: 1\n\xff")
    with pytest.raises(PipelineError) as refused:
        load_prompts([folder])
    files = {problem.file for problem in refused.value.problems}
    assert files == {str(folder / "answer.yaml"), str(folder / "bytes.yaml")}


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_prompts([tmp_path / "gone.yaml"])
