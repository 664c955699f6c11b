"""`rerank`: one call to an embedding pool for the query and all documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from graphs.documents import Document
from graphs.nodes.rerank import MAX_DOCUMENTS, Rerank
from runtime.errors import NodeError
from runtime.executor.kinds.embed import vectors_of
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values


def prepare(spec: Rerank, resources: Resources) -> Perform:
    pool = resources.pools[spec.model]

    async def perform(call: NodeCall, inputs: Values) -> Values:
        documents = [_document(each) for each in inputs["documents"]]
        if len(documents) > MAX_DOCUMENTS:
            message = f"there are {len(documents)} documents, {call.node} takes at most {MAX_DOCUMENTS}"
            raise NodeError(message, param="documents")
        if not documents:
            return {"documents": []}
        texts = [inputs["query"], *(document.whole for document in documents)]
        vectors = await vectors_of(pool, call, texts, spec.max_prompt_tokens, "the query with the documents")
        return {"documents": _nearest(documents, vectors)[: spec.top_n]}

    return perform


def _nearest(documents: list[Document], vectors: list[list[float]]) -> list[Document]:
    """All of them with their scores, the nearest first; those alike in the order in which they came."""
    query, *rows = np.asarray(vectors, dtype=np.float32)
    scores = [round(float(row @ query), 6) for row in rows]
    scored = [
        msgspec.structs.replace(document, score=score)
        for document, score in zip(documents, scores, strict=True)
    ]
    return sorted(scored, key=lambda document: -document.score)


def _document(value: Document | Mapping[str, Any]) -> Document:
    return value if isinstance(value, Document) else msgspec.convert(value, Document)
