"""Shapes have the size asked for, and our language takes them."""

from __future__ import annotations

import pytest

from benchmarks.shapes import SHAPES, sinks, to_yaml
from graphs.loader import load
from runtime.compiler.compile import compile_until


def count(nodes):
    """Those inside others too."""
    return sum(1 + sum(count(body.nodes) for body in node.bodies.values()) for node in nodes.values())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nodes", [12, 260])
def test_a_shape_of_any_size_is_a_pipeline_and_all_its_nodes_are_wanted(shape, nodes):
    loaded = load(to_yaml(shape, SHAPES[shape](nodes)))
    assert loaded.warnings == []
    assert count(loaded.pipeline.nodes) == nodes
    assert count(compile_until("prune", loaded.pipeline).nodes) == nodes


def test_half_of_the_blocks_search_for_what_others_do():
    pipeline = load(to_yaml("rag", SHAPES["rag"](28))).pipeline
    assert len(compile_until("dedupe", pipeline).nodes) == 28 - 3 * 2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_the_same_every_time(shape):
    assert SHAPES[shape](100) == SHAPES[shape](100)


def test_chain_and_fan_are_what_they_are_called():
    assert [part.sources for part in SHAPES["chain"](3)] == [(), ("n0",), ("n1",)]
    fan = SHAPES["fan"](10)
    assert [part.name for part in sinks(fan)] == ["last"]
    assert len([part for part in fan if not part.sources]) == 8
