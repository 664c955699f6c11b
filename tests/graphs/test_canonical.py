"""Defaults that are written mean the same as defaults that are left out."""

import msgspec
import pytest

from graphs.builder import Builder
from graphs.canonical import Canonical
from graphs.nodes.llm import Llm
from graphs.pipeline import Metadata, Policies, Retry


class Sample(Canonical, frozen=True, omit_defaults=True):
    needed: int
    number: int = 1_000
    text: str = "0.0.0"
    several: tuple[str, ...] = ("a", "b")
    free: float | None = None


def test_what_equals_a_default_is_left_out():
    assert msgspec.to_builtins(msgspec.convert(json(text="0.0.0", number=1_000), Sample)) == {"needed": 1}
    assert msgspec.to_builtins(msgspec.convert(json(several=["a", "b"], free=None), Sample)) == {"needed": 1}


def test_what_differs_is_kept():
    given = json(number=1_001, text="", several=["b"], free=0.0)
    assert json_of(msgspec.convert(given, Sample)) == given


@pytest.mark.parametrize("struct", [Llm(model="m"), Metadata("n"), Policies(), Retry()])
def test_parts_of_pipelines(struct):
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    written = {
        name: field.default
        for name, field in fields.items()
        if field.default is not msgspec.NODEFAULT and field.default is not None
    }
    data = msgspec.to_builtins(struct)
    copied = msgspec.json.decode(msgspec.json.encode({**written, **data}))
    assert msgspec.to_builtins(msgspec.convert(copied, type(struct))) == data


def test_hashes_of_pipelines():
    def build(**settings):
        b = Builder("demo")
        b.output("o", b.add("a", Llm(model="m", **settings), prompt="hi")["text"])
        return b.build().content_hash()

    assert build() == build(max_prompt_tokens=int("1024"))


def json_of(struct):
    return msgspec.json.decode(msgspec.json.encode(struct))


def json(**fields):
    return msgspec.json.decode(msgspec.json.encode({"needed": 1, **fields}))
