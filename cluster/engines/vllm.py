"""vLLM: the one file that touches the private parts of vLLM and of `ray.serve.llm`.

`LLMServer` gives chat templates, tools, structured outputs and LoRA; `VllmEngine` gives it our messages and
starts it with half the processes on CPU. What this relies on beyond their public interfaces:

- `LLMServer.chat`/`completions` yield lists of SSE strings for streams, one response or error object else;
- `engine._engine_client.output_processor` counts the unfinished requests, and knows of each how far it is;
- requests are called `chatcmpl-ID` and `cmpl-ID-0` there;
- `engine._engine_client.vllm_config.cache_config` says how many KV blocks there are;
- `collective_rpc` of that client calls methods of `vllm_lora.LoraOnCpu` in the worker;
- `LLMServer._start_engine` starts the engine, and then reports on it;
- `VLLMEngine._start_async_llm_engine` is handed the finished engine configuration;
- on CPU, `uni` as the executor runs the worker in the engine core's process;
- `VLLMEngine.resolve_lora` loads an adapter, and `_oai_models` forgets one. vLLM tells the prefixes of
  adapters apart by their names alone, so that one whose source has changed needs another salt.

Importing this module imports vLLM (ten seconds, 0.5 GB): only a replica does, see `engines.replicas`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cached_property
from pathlib import Path
from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

from cluster.config import VllmSpec
from cluster.engines import cpu, gpu
from cluster.engines.adapters import Adapters
from cluster.engines.vllm_arguments import engine_arguments
from cluster.errors import InvalidCall
from cluster.interface import Batch
from cluster.messages import Embed, Embeddings, EngineStatus, Generate, Usage
from cluster.openai_wire import error_of, reply_events, request_body, sse_payloads


class LocalModel(CallbackBase):  # type: ignore[misc]
    """For a model folder that every node has: no download task, whose process alone costs 0.5 GB."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class OneProcessEngine(VLLMEngine):  # type: ignore[misc]
    """A CPU engine whose only worker lives in the engine core's process."""

    def _start_async_llm_engine(self, engine_args: Any, engine_config: Any, placement_group: Any) -> Any:
        engine_config.parallel_config.distributed_executor_backend = "uni"
        return super()._start_async_llm_engine(engine_args, engine_config, placement_group)


class VllmEngine(LLMServer):  # type: ignore[misc]
    """Implements `cluster.interface.Engine`."""

    _completed = 0
    _aborted = 0
    _prompt_tokens = 0
    _completion_tokens = 0

    async def _start_engine(self) -> None:
        """As the parent does it, without its report of usage, which nobody is sent: the actor that takes it
        would be one more process with vLLM in it, on the head."""
        await self.engine.start()

    @cached_property
    def adapters(self) -> Adapters:
        return Adapters(self._load_adapter, self._unload_adapter)

    async def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        done = False
        try:
            await self.adapters.ready(call.model)
            async with aclosing(await self._submit(call)) as items:
                async for item in items:
                    for batch in _batches(item):
                        if isinstance(batch[-1], Usage):
                            done = True
                            self._prompt_tokens += batch[-1].prompt_tokens
                            self._completion_tokens += batch[-1].completion_tokens
                        yield batch
        finally:
            self._completed += done
            self._aborted += not done

    async def embed(self, call: Embed) -> Embeddings:
        raise InvalidCall(f"{call.model} is a generative model and has no embeddings", param="model")

    async def status(self) -> EngineStatus:
        return EngineStatus(
            running=self.engine._engine_client.output_processor.get_num_unfinished_requests(),
            completed=self._completed,
            aborted=self._aborted,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            adapters=self.adapters.loaded,
        )

    def produced(self) -> dict[str, int]:
        made: dict[str, int] = {}
        for state in self.engine._engine_client.output_processor.request_states.values():
            kind, _, name = state.external_req_id.partition("-")
            request_id = name if kind == "chatcmpl" else name.rpartition("-")[0]
            tokens = 0 if state.is_prefilling else state.detokenizer.num_output_tokens()
            made[request_id] = made.get(request_id, 0) + tokens
        return made

    def kv_tokens(self) -> int:
        """Tokens that the KV cache has room for."""
        cache = self.engine._engine_client.vllm_config.cache_config
        return int(cache.num_gpu_blocks * cache.block_size)

    async def _submit(self, call: Generate) -> Any:
        body = request_body(call)
        body["request_id"] = call.request_id
        body["priority"] = call.priority
        if salt := self.adapters.salt(call.tenant, call.model):
            body["cache_salt"] = salt
        try:
            if call.messages is not None:
                return await self.chat(ChatCompletionRequest(**body))
            return await self.completions(CompletionRequest(**body))
        except ValueError as error:  # pydantic's: a combination that only vLLM knows to be wrong
            raise InvalidCall(_first_error(error)) from error

    async def _load_adapter(self, name: str, source: str) -> None:
        adapter = {"model_id": name, "local_path": source, "max_total_tokens": None}
        await self.engine.resolve_lora(DiskMultiplexConfig(**adapter, lora_assigned_int_id=0))

    async def _unload_adapter(self, name: str) -> None:
        await self.engine._oai_models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))


async def start(spec: VllmSpec, folder: Path | None, cores: str | None) -> VllmEngine:
    """A running engine for the spec.

    Args:
        folder: the model's files if they are on this node; else vLLM downloads `spec.source`.
        cores: this replica's own cores, as "0-3"; None on accelerators.
    """
    engine_cls = None
    # The engine process reads these from its environment, which it inherits from this one.
    os.environ.update(gpu.environment(spec) if cores is None else cpu.environment(spec, cores))
    if cores is not None:
        engine_cls = OneProcessEngine
    engine: VllmEngine = VllmEngine.sync_init(
        LLMConfig(**llm_config_fields(spec, folder)), engine_cls=engine_cls
    )
    async with gpu.one_at_a_time(spec, gpu.lock_file()):
        await engine.start()
    if spec.loras is not None and spec.on_cpu:
        await engine.engine._engine_client.collective_rpc("leave_base_rows_alone")
    return engine


def llm_config_fields(spec: VllmSpec, folder: Path | None) -> dict[str, Any]:
    """The spec as fields of `ray.serve.llm.LLMConfig`."""
    fields: dict[str, Any] = {
        "model_loading_config": {"model_id": spec.name, "model_source": str(folder or spec.source)},
        "engine_kwargs": engine_arguments(spec),
        # Tokens leave as they come; what waits for a slow reader is merged in `engines.serving`.
        "experimental_configs": {"stream_batching_interval_ms": 0},
    }
    if folder is not None:
        fields["callback_config"] = {"callback_class": LocalModel}
    if spec.on_cpu:
        fields["accelerator_config"] = {"kind": "cpu"}
    else:
        fields["accelerator_type"] = spec.accelerator_type
    return fields


def _batches(item: Any) -> list[Batch]:
    """The batches of what `LLMServer` yields: SSE strings, or one response or error object."""
    if isinstance(item, list | str):
        texts = item if isinstance(item, list) else [item]
        parsed = [reply_events(data) for text in texts for data in sse_payloads(_text(text))]
        return [batch for batch in parsed if batch]
    return [reply_events(item.model_dump(exclude_none=True))]


def _text(item: Any) -> str:
    if isinstance(item, str):
        return item
    error = item.error  # an ErrorResponse in the place of a chunk
    raise error_of(error.code, error.message, error.param)


def _first_error(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    first = errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
