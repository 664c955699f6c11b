"""References to prompts mean versions and labels, and say what was meant where they mean nothing."""

import pickle

import pytest

from graphs.prompts import Prompts, PromptVersion, UnknownPrompt, is_reference

OLD = PromptVersion("answer", "1.0.0", "old {{ q }}")
NEW = PromptVersion("answer", "1.1.0", "new {{ q }}", labels=("stable",))
NEXT = PromptVersion("answer", "2.0.0-rc.1", "next {{ q }}", labels=("candidate", "nightly"))
OTHER = PromptVersion("expand", "1", "{{ q }}", labels=("draft",))
PROMPTS = Prompts([OLD, NEW, NEXT, OTHER])


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("prompts/answer", NEW),
        ("prompts/answer@stable", NEW),
        ("prompts/answer@1.0.0", OLD),
        ("prompts/answer@2.0.0-rc.1", NEXT),
        ("prompts/answer@nightly", NEXT),
        ("prompts/expand@draft", OTHER),
    ],
)
def test_found(reference, version):
    assert is_reference(reference)
    assert PROMPTS.find(reference) is version


@pytest.mark.parametrize(
    ("reference", "message", "token", "hint"),
    [
        ("prompts/anser", "no prompt anser", "anser", "did you mean answer?"),
        ("prompts/answer@stabel", "no version or label stabel", "stabel", "did you mean stable?"),
        ("prompts/answer@1.0", "no version or label 1.0", "1.0", "did you mean 1."),
        ("prompts/expand", "no version or label stable", "expand", "known: 1, draft"),
        ("answer", "names no prompt", "answer", "write prompts/NAME"),
        ("prompts/answer@", "names no prompt", "prompts/answer@", "write prompts/NAME"),
        ("prompts/../secret", "names no prompt", "prompts/../secret", "write prompts/NAME"),
    ],
)
def test_not_found(reference, message, token, hint):
    with pytest.raises(UnknownPrompt, match=message) as unknown:
        PROMPTS.find(reference)
    assert unknown.value.token == token
    assert unknown.value.hint.startswith(hint)
    assert vars(pickle.loads(pickle.dumps(unknown.value))) == vars(unknown.value)


def test_without_prompts_the_hint_says_where_they_come_from():
    with pytest.raises(UnknownPrompt) as unknown:
        Prompts().find("prompts/answer")
    assert "deploy config" in unknown.value.hint


@pytest.mark.parametrize("text", ["a prompt", "prompts/a b", "prompts/a@b@c", " prompts/a", "prompts/a\n"])
def test_other_texts_are_no_references(text):
    assert not is_reference(text)
