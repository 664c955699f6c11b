"""Sentence embeddings on onnxruntime: mean-pooled, L2-normalised hidden states of a BERT-like encoder.

Pooling after Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019), section 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from cluster.errors import ConfigError, EngineFailed, InvalidCall
from cluster.interface import Batch
from cluster.messages import Embed, Embeddings, EngineStatus, Generate, Usage


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
        self._tokenizer.enable_padding()
        self._max_tokens = max_tokens
        # One thread: onnxruntime already spreads a batch over `threads` cores, and order stays fair.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="onnx")
        self._running = self._completed = self._prompt_tokens = 0

    async def embed(self, call: Embed) -> Embeddings:
        self._running += 1
        try:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self._executor, self._embed, call.texts)
        finally:
            self._running -= 1
        self._completed += 1
        self._prompt_tokens += result.usage.prompt_tokens
        return result

    def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        raise InvalidCall(f"{call.model} is an embedding model; call /v1/embeddings", param="model")

    async def check_health(self) -> None:
        if self._executor._shutdown:
            raise EngineFailed("the embedder has been shut down")

    async def status(self) -> EngineStatus:
        return EngineStatus(
            running=self._running, completed=self._completed, prompt_tokens=self._prompt_tokens
        )

    def _embed(self, texts: list[str]) -> Embeddings:
        encoded = self._tokenizer.encode_batch(texts)
        mask = np.array([item.attention_mask for item in encoded], dtype=np.int64)
        lengths = mask.sum(axis=1)
        if lengths.max() > self._max_tokens:
            index = int(lengths.argmax())
            raise InvalidCall(
                f"input {index} has {int(lengths[index])} tokens; the model takes {self._max_tokens}",
                param=f"input[{index}]",
            )
        feed = {
            "input_ids": np.array([item.ids for item in encoded], dtype=np.int64),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        feed = {name: value for name, value in feed.items() if name in self._inputs}
        hidden = self._session.run(None, feed)[0]
        weights = mask[:, :, None].astype(np.float32)
        vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings(vectors.tolist(), Usage(prompt_tokens=int(lengths.sum())))
