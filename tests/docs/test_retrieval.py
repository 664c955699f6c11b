"""What users ask finds the section that answers it, with the embedding model of the quickstart."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluster.config import OnnxSpec
from cluster.engines.onnx import OnnxEmbedder
from cluster.messages import Embed
from cluster.models import prepare
from cluster.pools.deploy import model_info, token_counter
from cluster.pools.local import LocalPool
from runtime.indexes import Index

DOCS = Path(__file__).parent.parent.parent / "docs"

ASKED = {
    "How do I create an API key?": "How do I create an API key?",
    "What happens when a client disconnects?": "What happens when a client leaves?",
    "How can I limit how many tokens a team uses?": "Which limits can a key have?",
    "Which ports does it listen on?": "Which ports does it use?",
    "How do I deploy to Kubernetes?": "How do I run it on Kubernetes?",
    "How do I continue an earlier conversation?": "How do I continue a conversation?",
    "Can I call the service with the OpenAI Python library?": "How do I use the openai SDK?",
    "How do I stream tokens?": "How do I stream an answer?",
    "What should I do when I get 429?": "What happens when a limit is reached?",
    "How do I use Redis instead of the embedded store?": "How do I use my own Redis or Valkey?",
    "Do I need a GPU?": "What do I need to run it?",
    "How do I write a graph in YAML?": "How do I write a graph?",
}
TOP = 3
"""Passages that the graph reads."""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    spec = OnnxSpec(name="minilm", engine="onnx", source="bundled/minilm")
    folder = prepare(spec.source, data_dir)
    embedder = OnnxEmbedder(
        folder / "model.onnx", folder / "tokenizer.json", max_tokens=spec.max_context, threads=1
    )
    return LocalPool(model_info(spec), embedder, token_counter(spec, data_dir))


@pytest.mark.timeout(1800)  # the whole manual is embedded, which takes half a minute of one core
async def test_questions_find_their_sections(pool, tmp_path):
    index = await Index.build("manual", [DOCS], pool, cache_dir=tmp_path)
    call = Embed("questions", "minilm", list(ASKED), deadline=time.time() + 60)
    vectors = (await pool.embed(call)).vectors
    missed = {}
    for (question, heading), vector in zip(ASKED.items(), vectors, strict=True):
        found = [document.heading.split(" > ")[-1] for document in index.search(vector, TOP)]
        if heading not in found:
            missed[question] = found
    assert missed == {}
