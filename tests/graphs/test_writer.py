"""Pipeline to YAML and back."""

import pytest
from hypothesis import given

from graphs.loader import load
from graphs.writer import to_data, to_yaml
from tests.graphs.shapes import SHAPES, pipelines, pipelines_with_bodies, rag


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_survive(name):
    pipeline = SHAPES[name]()
    again = load(to_yaml(pipeline)).pipeline
    assert again == pipeline
    assert again.content_hash() == pipeline.content_hash()


@given(pipelines())
def test_any_pipeline_survives(pipeline):
    again = load(to_yaml(pipeline)).pipeline
    assert again.content_hash() == pipeline.content_hash()
    assert to_yaml(again) == to_yaml(pipeline)


@given(pipelines_with_bodies())
def test_any_pipeline_with_bodies_survives(pipeline):
    again = load(to_yaml(pipeline)).pipeline
    assert again == pipeline
    assert again.content_hash() == pipeline.content_hash()
    assert to_yaml(again) == to_yaml(pipeline)


def test_reads_like_it_was_written_by_hand():
    text = to_yaml(rag())
    assert "question: string\n" in text
    assert "      top_k: ${inputs.top_k}\n" in text
    assert "&" not in text


def test_sections_with_nothing_in_them_are_left_out():
    data = to_data(SHAPES["chain"]())
    assert set(data) == {"apiVersion", "kind", "metadata", "inputs", "nodes", "outputs"}
