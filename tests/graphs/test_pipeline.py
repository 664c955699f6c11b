"""The frozen pipeline: its hash, its names, its wire form."""

import msgspec
import pytest

from graphs.pipeline import Node, NodeId, Pipeline, name_fault
from tests.graphs.shapes import SHAPES, chain, rag


@pytest.mark.parametrize("name", SHAPES)
def test_hash_does_not_depend_on_order(name):
    pipeline = SHAPES[name]()
    turned = msgspec.structs.replace(
        pipeline,
        nodes={
            node_id: Node(node.spec, dict(reversed(node.inputs.items())), node.after, node.when)
            for node_id, node in reversed(pipeline.nodes.items())
        },
        inputs=dict(reversed(pipeline.inputs.items())),
        outputs=dict(reversed(pipeline.outputs.items())),
    )
    assert turned == pipeline
    assert turned.content_hash() == pipeline.content_hash()


def test_hash_sees_every_part():
    pipeline = rag()
    others = [
        msgspec.structs.replace(pipeline, chat=None),
        msgspec.structs.replace(pipeline, metadata=msgspec.structs.replace(pipeline.metadata, version="2")),
        msgspec.structs.replace(pipeline, outputs={"text": pipeline.outputs["text"]}),
        msgspec.structs.replace(
            pipeline, nodes={NodeId("x" + n): node for n, node in pipeline.nodes.items()}
        ),
    ]
    assert len({pipeline.content_hash(), *(other.content_hash() for other in others)}) == 5


@pytest.mark.parametrize("name", SHAPES)
def test_wire_round_trip(name):
    pipeline = SHAPES[name]()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(pipeline), type=Pipeline) == pipeline
    assert msgspec.json.decode(msgspec.json.encode(pipeline), type=Pipeline) == pipeline


def test_frozen():
    with pytest.raises(AttributeError, match="immutable"):
        chain().metadata = None


@pytest.mark.parametrize("name", ["a", "_x", "then_fast", "support-rag", "A9"])
def test_good_names(name):
    assert name_fault(name) is None


@pytest.mark.parametrize("name", ["", "9a", "a b", "a.b", "é", "x" * 65, "inputs", "context", "-a", "a\n"])
def test_bad_names(name):
    assert name_fault(name)
