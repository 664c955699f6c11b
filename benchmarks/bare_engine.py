"""vLLM alone, as the gateway's replica starts it, with the least HTTP before it that a load generator needs.

    python -m benchmarks.bare_engine CONFIG MODEL PORT

It answers every request with a stream of the tokens that the engine makes of the request's messages: no
checks, no keys, no hop. Says `listening` when it has answered one by itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

from benchmarks.mock_upstream import DONE, Upstream
from cluster.config import VllmSpec
from cluster.engines import cpu
from cluster.messages import Generate, Message
from cluster.models import model_folder
from cluster.tokens import ModelTokenCounter
from serve_apps.settings import load_settings

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Body(msgspec.Struct):
    """What is read of a request."""

    messages: list[Message]
    max_tokens: int


_decode = msgspec.json.Decoder(Body).decode
_encode = msgspec.json.Encoder().encode


class BareEngine:
    """The engine of a spec, and its tokenizer."""

    def __init__(self, spec: VllmSpec, data_dir: Path) -> None:
        folder = model_folder(spec.source, data_dir)
        if folder is None:
            raise ValueError(f"{spec.source} is no model of this machine")
        if lists := spec.core_lists():
            os.environ.update(cpu.environment(spec, lists[0]))
        # Ten seconds and half a gigabyte, and it reads the variables above.
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from cluster.engines.vllm import llm_config_fields

        known = {field.name for field in fields(AsyncEngineArgs)}
        kwargs = {
            name: value
            for name, value in llm_config_fields(spec, folder)["engine_kwargs"].items()
            if name in known
        }
        config = AsyncEngineArgs(model=str(folder), **kwargs).create_engine_config()
        if lists:
            config.parallel_config.distributed_executor_backend = "uni"
        self._engine = AsyncLLM.from_vllm_config(config)
        self._counter = ModelTokenCounter(folder)

    async def generate(self, body: Body) -> AsyncIterator[str]:
        """The text of each token as it comes."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        call = Generate(uuid.uuid4().hex, "", body.max_tokens, deadline=0.0, messages=body.messages)
        prompt: Any = {"prompt_token_ids": self._counter.encode(call).ids}
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=body.max_tokens,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
        )
        async for output in self._engine.generate(prompt, sampling, call.request_id):
            yield output.outputs[0].text


class EngineConnection(Upstream):
    """One connection."""

    engine: BareEngine

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0 or not self._buffer.endswith(b"}"):
            return
        body = _decode(self._buffer[head_end + 4 :])
        del self._buffer[:]
        self._task = asyncio.get_running_loop().create_task(self._tell(body))

    async def _tell(self, body: Body) -> None:
        transport = cast(asyncio.Transport, self._transport)
        head = HEAD
        async for text in self.engine.generate(body):
            transport.write(head + _chunk(b"data: " + _encode({"text": text}) + b"\n\n"))
            head = b""
        transport.write(_chunk(DONE) + b"0\r\n\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(config: Path, model: str, port: int) -> None:
    """Listens until the standard input ends."""
    settings = load_settings(config)
    spec = next(spec for spec in settings.models if spec.name == model)
    if not isinstance(spec, VllmSpec):
        raise ValueError(f"{model} does not run on vLLM")
    EngineConnection.engine = engine = BareEngine(spec, settings.data_dir)
    async for _ in engine.generate(Body([Message("user", "Hello")], 2)):
        pass
    loop = asyncio.get_running_loop()
    server = await loop.create_server(EngineConnection, "127.0.0.1", port)
    print("listening", flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
