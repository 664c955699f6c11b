"""Values of ports survive being packed."""

import msgspec
import pytest

from cluster.messages import Message
from graphs.documents import Document
from runtime.cache.values import pack, unpack

VALUES = [
    {"text": "a", "n": 3, "x": 0.5, "none": None, "yes": True, "list": [1, ["a"], {"k": []}]},
    {"documents": [Document("1", "passage", score=0.25), Document("2", "another")]},
    {"state": {"turns": [Message("user", "hello")], "found": {"best": Document("3", "third")}}},
]


@pytest.mark.parametrize("value", VALUES)
def test_survives(value):
    assert unpack(pack(value)) == value


def test_what_is_no_value_is_refused():
    with pytest.raises(TypeError):
        pack({"x": object()})


def test_an_unknown_kind_is_refused():
    with pytest.raises(msgspec.MsgspecError):
        unpack(msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"")))
