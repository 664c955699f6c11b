from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.engines import onnx
from cluster.engines.onnx import OnnxEmbedder
from cluster.errors import ConfigError, InvalidCall
from cluster.messages import EngineStatus
from cluster.models import prepare
from cluster.tokens import ModelTokenCounter
from tests.cluster.calls import chat, embed, events_of

CAR, AUTO, TAX = "The car is fast.", "That automobile is quick.", "Taxes are due in April."

INT8_NOISE = 0.03
"""The model quantises its activations for a whole batch at once, so neighbours move a vector a little."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare("bundled/minilm", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def embedder(folder: Path) -> OnnxEmbedder:
    return embedder_of(folder)


def embedder_of(folder: Path, max_tokens: int = 512) -> OnnxEmbedder:
    return OnnxEmbedder(folder / "model.onnx", folder / "tokenizer.json", max_tokens=max_tokens, threads=1)


async def vectors(embedder: OnnxEmbedder, *texts: str) -> Any:
    return np.array((await embedder.embed(embed(*texts))).vectors)


async def test_vectors_have_the_models_dimension_and_length_one(embedder: OnnxEmbedder) -> None:
    found = await vectors(embedder, CAR, "", "é🙂")
    assert found.shape == (3, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


async def test_what_means_the_same_is_near(embedder: OnnxEmbedder) -> None:
    car, auto, tax = await vectors(embedder, CAR, AUTO, TAX)
    assert car @ auto > 0.5 > car @ tax


async def test_padding_does_not_change_a_vector(embedder: OnnxEmbedder) -> None:
    [alone] = await vectors(embedder, CAR)
    padded, _ = await vectors(embedder, CAR, "word " * 200)
    assert alone @ padded > 1 - INT8_NOISE


async def test_usage_is_what_the_tokenizer_counts(embedder: OnnxEmbedder, folder: Path) -> None:
    call = embed(CAR, "", "word " * 200)
    result = await embedder.embed(call)
    assert result.usage.prompt_tokens == ModelTokenCounter(folder).count(call)


async def test_many_texts_keep_their_order_over_slices(
    embedder: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "SLICE", 2)
    texts = [CAR, TAX, "Rain in Spain", "A cat sat.", "Prime numbers"]
    together = await vectors(embedder, *texts)
    alone = np.concatenate([await vectors(embedder, text) for text in texts])
    assert (together @ alone.T).argmax(axis=1).tolist() == list(range(5))


async def test_a_large_call_lets_others_in_between(
    embedder: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "SLICE", 1)
    large = asyncio.create_task(embedder.embed(embed(*[CAR] * 50)))
    while (await embedder.status()).running == 0:
        await asyncio.sleep(0)
    await embedder.embed(embed(TAX))
    assert not large.done()
    assert len((await large).vectors) == 50


async def test_a_text_that_is_too_long_is_refused_by_its_place(folder: Path) -> None:
    embedder = embedder_of(folder, max_tokens=8)
    with pytest.raises(InvalidCall, match="input 1 has 52 tokens; the model takes 8") as caught:
        await embedder.embed(embed("a", "word " * 50))
    assert caught.value.param == "input[1]"
    assert len((await embedder.embed(embed("a b c d e f"))).vectors) == 1


async def test_no_text_is_refused(embedder: OnnxEmbedder) -> None:
    with pytest.raises(InvalidCall, match="no text"):
        await embedder.embed(embed())


async def test_an_embedder_does_not_generate(embedder: OnnxEmbedder) -> None:
    with pytest.raises(InvalidCall, match="embedding model") as caught:
        await events_of(embedder.generate(chat()))
    assert caught.value.param == "model"


async def test_the_status_counts(folder: Path) -> None:
    embedder = embedder_of(folder)
    await embedder.check_health()
    usages = [(await embedder.embed(embed(*texts))).usage for texts in ([CAR], [TAX, AUTO])]
    total = sum(usage.prompt_tokens for usage in usages)
    assert await embedder.status() == EngineStatus(completed=2, prompt_tokens=total)


@pytest.mark.parametrize(("model", "tokenizer"), [("none", "tokenizer.json"), ("model.onnx", "none")])
def test_a_file_that_is_missing_is_named(folder: Path, model: str, tokenizer: str) -> None:
    with pytest.raises(ConfigError, match="none") as caught:
        OnnxEmbedder(folder / model, folder / tokenizer, max_tokens=8, threads=1)
    assert caught.value.param == "source"


async def test_a_batch_gives_each_call_what_it_would_have_alone(embedder: OnnxEmbedder) -> None:
    calls = [embed(CAR), embed(TAX, "word " * 600), embed("word " * 100, AUTO)]
    first, wrong, last = await embedder.embed_many(calls)
    assert isinstance(wrong, InvalidCall)
    assert wrong.param == "input[1]"
    for made, call in ((first, calls[0]), (last, calls[2])):
        alone = await embedder.embed(call)
        assert not isinstance(made, Exception)
        assert made.usage == alone.usage
        for vector, expected in zip(made.vectors, alone.vectors, strict=True):
            assert np.array(vector) @ np.array(expected) > 1 - INT8_NOISE
