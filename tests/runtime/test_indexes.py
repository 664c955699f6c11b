"""Vector indexes: found, cached, and never wrong for being cached."""

from pathlib import Path

import pytest

from cluster.messages import Embed
from runtime.errors import NodeError
from runtime.indexes import BATCH, Index
from tests.runtime.parts import DIMENSION, embedder

WORDS = ("apple", "boat", "cloud", "door")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "words.md").write_text("\n".join(f"# {word}\n\nAbout the {word}.\n" for word in WORDS))
    return folder


async def embedded(pool, text: str) -> list[float]:
    return (await pool.embed(Embed("x", "embedder", [text], 1e12))).vectors[0]


async def test_a_document_is_found_by_its_own_vector(corpus, tmp_path):
    pool = embedder()
    index = await Index.build("manual", [corpus], pool, cache_dir=tmp_path / "cache")
    assert (len(index), index.name, index.model) == (4, "manual", "embedder")
    for word in WORDS:
        found = index.search(await embedded(pool, f"{word}\nAbout the {word}."), 2)
        assert (found[0].heading, found[0].source) == (word, "docs/words.md")
        assert found[0].score == pytest.approx(1.0, abs=1e-5)
        assert found[0].score >= found[1].score


async def test_no_more_is_found_than_there_is(corpus, tmp_path):
    index = await Index.build("manual", [corpus], embedder(), cache_dir=tmp_path / "cache")
    assert len(index.search([0.1] * DIMENSION, 100)) == 4


async def test_a_vector_of_another_dimension_is_refused(corpus, tmp_path):
    index = await Index.build("manual", [corpus], embedder(), cache_dir=tmp_path / "cache")
    with pytest.raises(NodeError, match="vectors of 384 numbers, this one has 3"):
        index.search([0.1] * 3, 1)


async def test_a_second_build_embeds_nothing(corpus, tmp_path):
    cache = tmp_path / "cache"
    first = await Index.build("manual", [corpus], embedder(), cache_dir=cache)
    pool = embedder()
    second = await Index.build("manual", [corpus], pool, cache_dir=cache)
    assert (await pool.engine.status()).completed == 0
    vector = await embedded(pool, "cloud boat")
    assert second.search(vector, 4) == first.search(vector, 4)


async def test_another_corpus_or_model_is_embedded_anew(corpus, tmp_path):
    cache = tmp_path / "cache"
    await Index.build("manual", [corpus], embedder(), cache_dir=cache)
    other = embedder("other")
    await Index.build("manual", [corpus], other, cache_dir=cache)
    assert (await other.engine.status()).completed == 1
    (corpus / "more.md").write_text("More.")
    pool = embedder("other")
    assert len(await Index.build("manual", [corpus], pool, cache_dir=cache)) == 5
    assert (await pool.engine.status()).completed == 1
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"short", None])
async def test_a_damaged_cache_is_made_anew(corpus, tmp_path, damage):
    cache = tmp_path / "cache"
    first = await Index.build("manual", [corpus], embedder(), cache_dir=cache)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    pool = embedder()
    again = await Index.build("manual", [corpus], pool, cache_dir=cache)
    assert (await pool.engine.status()).completed == 1
    assert file.read_bytes() == content
    vector = await embedded(pool, "cloud boat")
    assert again.search(vector, 4) == first.search(vector, 4)


async def test_texts_are_embedded_in_batches(tmp_path):
    file = tmp_path / "many.md"
    file.write_text("\n".join(f"# h{i}\n\ntext {i}\n" for i in range(BATCH + 1)))
    pool = embedder()
    assert len(await Index.build("many", [file], pool, cache_dir=tmp_path / "cache")) == BATCH + 1
    assert (await pool.engine.status()).completed == 2


async def test_texts_that_the_model_cannot_take_whole_are_cut(tmp_path):
    file = tmp_path / "long.md"
    file.write_text("word " * 20)
    pool = embedder(max_context=6)
    index = await Index.build("long", [file], pool, cache_dir=tmp_path / "cache")
    assert len(index) > 3
    found = index.search([0.1] * DIMENSION, len(index))
    assert sum(len(document.text.split()) for document in found) == 20
    assert max(len(document.text.split()) for document in found) <= 6


async def test_an_empty_corpus_is_refused(tmp_path):
    (tmp_path / "empty.md").write_text("# Only a heading\n")
    with pytest.raises(ValueError, match="the corpus of the index manual is empty"):
        await Index.build("manual", [tmp_path / "empty.md"], embedder(), cache_dir=tmp_path / "cache")
