"""Vector indexes over small corpora of Markdown, kept in memory and cached on disk.

    files ─► chunking ─► Documents ─► a pool, in batches ─► vectors ─► usearch
                             └──────── digest of corpus and model ────────┴─► cache file

Only the vectors are cached: cutting the files is quick and always gives the same documents.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from usearch.index import Index as VectorIndex

from cluster.interface import Pool
from cluster.messages import Embed
from graphs.documents import Document
from runtime.chunking import halves, read_corpus
from runtime.errors import NodeError

BATCH = 32
"""Texts of one call to the pool."""
CALL_TIMEOUT_S = 120.0
EXACT_UP_TO = 10_000
"""Documents up to which every one is compared: as quick as the graph search, and never misses."""

_FORMAT = b"1"
_DIGEST_BYTES = 16

Vectors = NDArray[np.float32]


class Index:
    """Documents, and their vectors to find them by. Made by `build`."""

    def __init__(self, name: str, model: str, documents: Sequence[Document], vectors: Vectors) -> None:
        self.name = name
        self.model = model
        """The model that embedded it, and so must embed what is looked for."""
        self.version = _digest(model, documents)
        """Of its documents and of the model."""
        self._documents = documents
        self._dimension = int(vectors.shape[1])
        self._index = VectorIndex(ndim=self._dimension, metric="cos", dtype="f32")
        self._index.add(np.arange(len(documents)), vectors)

    def __len__(self) -> int:
        return len(self._documents)

    @classmethod
    async def build(cls, name: str, corpus: Sequence[Path], pool: Pool, *, cache_dir: Path) -> Index:
        """The index of Markdown files and of folders of them, embedded by `pool` unless that was done before.

        Raises `OSError` and `ValueError` for a corpus that cannot be read or is empty, `ClusterError` when
        the pool fails.
        """
        model = pool.info.name
        documents = await asyncio.to_thread(read_corpus, corpus)
        documents = [piece for document in documents for piece in _fitting(document, pool)]
        if not documents:
            raise ValueError(f"the corpus of the index {name} is empty")
        file = cache_dir / f"{_digest(model, documents)}.vectors"
        vectors = await asyncio.to_thread(_load, file, len(documents))
        if vectors is None:
            vectors = await _embed(name, documents, pool)
            await asyncio.to_thread(_save, file, vectors)
        return await asyncio.to_thread(cls, name, model, documents, vectors)

    def search(self, vector: Sequence[float], top_k: int) -> list[Document]:
        """At most `top_k` documents, the nearest first, with their scores. Takes about 0.1 ms.

        Raises `NodeError` for a vector of another dimension.
        """
        if len(vector) != self._dimension:
            message = f"{self.name} holds vectors of {self._dimension} numbers, this one has {len(vector)}"
            raise NodeError(message, param="embedding")
        query = np.asarray(vector, dtype=np.float32)
        found = self._index.search(query, min(top_k, len(self)), exact=len(self) <= EXACT_UP_TO)
        nearest = sorted(zip(found.distances.tolist(), found.keys.tolist(), strict=True))
        return [
            msgspec.structs.replace(self._documents[key], score=round(1.0 - distance, 6))
            for distance, key in nearest
        ]


def _fitting(document: Document, pool: Pool) -> list[Document]:
    """The document, or its parts where the model cannot take it whole."""
    call = Embed("index", pool.info.name, [document.whole], deadline=0.0)
    if pool.count_tokens(call) <= pool.info.max_context or len(document.text) < 2:
        return [document]
    return [piece for half in halves(document) for piece in _fitting(half, pool)]


async def _embed(name: str, documents: Sequence[Document], pool: Pool) -> Vectors:
    rows: list[list[float]] = []
    for start in range(0, len(documents), BATCH):
        texts = [document.whole for document in documents[start : start + BATCH]]
        call = Embed(f"index.{name}.{start}", pool.info.name, texts, deadline=time.time() + CALL_TIMEOUT_S)
        rows += (await pool.embed(call)).vectors
    return np.asarray(rows, dtype=np.float32)


def _digest(model: str, documents: Sequence[Document]) -> str:
    digest = hashlib.blake2b(_FORMAT + model.encode(), digest_size=_DIGEST_BYTES)
    for document in documents:
        digest.update(document.id.encode())
    return digest.hexdigest()


def _load(file: Path, rows: int) -> Vectors | None:
    """The cached vectors; None where there are none, or none that are whole."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    check, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest() != check:
        return None
    return np.frombuffer(data, dtype=np.float32).reshape(rows, -1)


def _save(file: Path, vectors: Vectors) -> None:
    """Writes the file whole or not at all, and drops those of earlier corpora."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = vectors.tobytes()
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_bytes(hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest() + data)
    draft.replace(file)
    for other in file.parent.glob("*.vectors"):
        if other != file:
            other.unlink(missing_ok=True)
