"""Sentence embeddings on onnxruntime: mean-pooled, L2-normalised hidden states of a BERT-like encoder.

Pooling after Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019), section 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from cluster.errors import ClusterError, ConfigError, InvalidCall
from cluster.interface import Batch
from cluster.messages import Embed, Embeddings, EngineStatus, Generate, Usage

SLICE = 16
"""Texts in the model at once. Attention needs memory for each of them that grows with the square of the
longest; and between two slices another call has its turn."""


class OnnxEmbedder:
    """Implements `cluster.interface.Engine` for an encoder exported to ONNX.

    Args:
        model: the `.onnx` file, with inputs `input_ids`, `attention_mask` and maybe `token_type_ids`
            (int64, [batch, sequence]) and output [batch, sequence, dimension] float32.
        tokenizer: its `tokenizer.json`.
        max_tokens: longest text in tokens; longer ones are refused, not cut.
        threads: cores one call may use.
    """

    def __init__(self, model: Path, tokenizer: Path, *, max_tokens: int, threads: int) -> None:
        for file in (model, tokenizer):
            if not file.is_file():
                raise ConfigError(f"no such file: {file}", param="source")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_tokens = max_tokens
        # One thread: onnxruntime already spreads a batch over `threads` cores, and order stays fair.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="onnx")
        self._running = self._completed = self._prompt_tokens = 0

    async def embed(self, call: Embed) -> Embeddings:
        [made] = await self.embed_many([call])
        if isinstance(made, ClusterError):
            raise made
        return made

    async def embed_many(self, calls: Sequence[Embed]) -> list[Embeddings | ClusterError]:
        """As `cluster.engines.batching.BatchEngine`."""
        self._running += len(calls)
        try:
            loop = asyncio.get_running_loop()
            encoded = await loop.run_in_executor(self._executor, self._encode_each, calls)
            # Alike in length, so that little of a slice is padding.
            every = sorted(
                (encoding for each in encoded if isinstance(each, list) for encoding in each), key=len
            )
            found: dict[int, list[float]] = {}
            for start in range(0, len(every), SLICE):
                part = every[start : start + SLICE]
                vectors = await loop.run_in_executor(self._executor, self._vectors, part)
                found.update(zip(map(id, part), vectors, strict=True))
        finally:
            self._running -= len(calls)
        return [each if isinstance(each, ClusterError) else self._made(each, found) for each in encoded]

    def _made(self, encodings: list[Encoding], found: Mapping[int, list[float]]) -> Embeddings:
        usage = Usage(prompt_tokens=sum(map(len, encodings)))
        self._completed += 1
        self._prompt_tokens += usage.prompt_tokens
        return Embeddings([found[id(encoding)] for encoding in encodings], usage)

    def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        raise InvalidCall(f"{call.model} is an embedding model; call /v1/embeddings", param="model")

    async def check_health(self) -> None:
        """A session keeps no state between calls that could break."""

    async def status(self) -> EngineStatus:
        return EngineStatus(
            running=self._running, completed=self._completed, prompt_tokens=self._prompt_tokens
        )

    def _encode_each(self, calls: Sequence[Embed]) -> list[list[Encoding] | ClusterError]:
        encoded: list[list[Encoding] | ClusterError] = []
        for call in calls:
            try:
                encoded.append(self._encode(call.texts))
            except InvalidCall as error:
                encoded.append(error)
        return encoded

    def _encode(self, texts: list[str]) -> list[Encoding]:
        if not texts:
            raise InvalidCall("there is no text to embed", param="input")
        encodings: list[Encoding] = self._tokenizer.encode_batch(texts)
        for index, encoding in enumerate(encodings):
            if len(encoding) > self._max_tokens:
                raise InvalidCall(
                    f"input {index} has {len(encoding)} tokens; the model takes {self._max_tokens}",
                    param=f"input[{index}]",
                )
        return encodings

    def _vectors(self, encodings: list[Encoding]) -> list[list[float]]:
        longest = max(len(encoding) for encoding in encodings)
        ids = np.zeros((len(encodings), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
        feed = {name: value for name, value in feed.items() if name in self._inputs}
        hidden = self._session.run(None, feed)[0]
        weights = mask[:, :, None].astype(np.float32)
        vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows: list[list[float]] = vectors.tolist()
        return rows
