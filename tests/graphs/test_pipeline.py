"""The frozen pipeline: its hash, its names, its wire form."""

import msgspec
import pytest
from hypothesis import given
from msgspec.structs import replace

from graphs.pipeline import Node, NodeId, Pipeline, name_fault
from tests.graphs.shapes import SHAPES, chain, pipelines_with_bodies, rag


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


def turned(nodes):
    """The same nodes, everything in them written the other way round."""
    return {
        node_id: replace(
            node,
            inputs=dict(reversed(node.inputs.items())),
            bodies={
                key: replace(body, nodes=turned(body.nodes), outputs=dict(reversed(body.outputs.items())))
                for key, body in reversed(node.bodies.items())
            },
        )
        for node_id, node in reversed(nodes.items())
    }


@given(pipelines_with_bodies())
def test_hash_does_not_depend_on_order_inside_nodes(pipeline):
    other = replace(pipeline, nodes=turned(pipeline.nodes))
    assert other == pipeline
    assert other.content_hash() == pipeline.content_hash()


@given(pipelines_with_bodies())
def test_wire_round_trip_of_bodies(pipeline):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(pipeline), type=Pipeline) == pipeline


def test_hash_does_not_depend_on_whether_defaults_are_said():
    pipeline = chain()
    said = msgspec.json.decode(
        b'{"metadata": {"name": "chain", "version": "0.0.0"}, "context": {"reads": []}, "policies": {},'
        b' "nodes": {}, "outputs": {}}',
        type=Pipeline,
    )
    other = replace(said, nodes=pipeline.nodes, outputs=pipeline.outputs, inputs=pipeline.inputs)
    assert other == pipeline
    assert other.content_hash() == pipeline.content_hash()


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
