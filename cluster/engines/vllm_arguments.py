"""A model's spec in vLLM's words, without vLLM: importing it takes ten seconds."""

from __future__ import annotations

from typing import Any

from cluster.config import VllmSpec
from cluster.vllm_options import NgramSpeculation, Speculation


def engine_arguments(spec: VllmSpec) -> dict[str, Any]:
    """Fields of vLLM's `EngineArgs`."""
    kwargs: dict[str, Any] = {
        "max_model_len": spec.max_context,
        "max_num_seqs": spec.max_num_seqs,
        "block_size": spec.block_size,
        "enforce_eager": spec.on_cpu if spec.enforce_eager is None else spec.enforce_eager,
        "scheduling_policy": "priority",
        "kv_cache_dtype": spec.kv_cache_dtype,
        "enable_prefix_caching": spec.prefix_caching,
        "structured_outputs_config": {"backend": spec.guided_decoding},
        "enable_prompt_tokens_details": True,
        "dtype": "float32" if spec.on_cpu and spec.dtype == "auto" else spec.dtype,
    }
    if (step_tokens := spec.step_tokens) is not None:
        kwargs["max_num_batched_tokens"] = step_tokens
    if spec.tool_parser is not None:
        kwargs |= {"enable_auto_tool_choice": True, "tool_call_parser": spec.tool_parser}
        # Else arguments are held to no schema unless the caller asks for it, and small models write any JSON.
        kwargs["tool_strict_level"] = "parameter"
    if spec.quantization is not None:
        kwargs["quantization"] = spec.quantization
    if spec.revision is not None:
        kwargs["revision"] = kwargs["tokenizer_revision"] = spec.revision
    if spec.speculative is not None:
        kwargs["speculative_config"] = _speculation(spec.speculative)
    if spec.loras is not None:
        kwargs |= {"enable_lora": True, "max_loras": spec.loras.max_active}
        kwargs |= {"max_lora_rank": spec.loras.max_rank, "max_cpu_loras": spec.loras.max_cached}
        if spec.on_cpu:
            kwargs["worker_extension_cls"] = "cluster.engines.vllm_lora.LoraOnCpu"
    if not spec.on_cpu:
        kwargs["tensor_parallel_size"] = spec.tensor_parallel_size
        kwargs["pipeline_parallel_size"] = spec.pipeline_parallel_size
        kwargs["gpu_memory_utilization"] = spec.memory_share
    return kwargs


def _speculation(spec: Speculation) -> dict[str, Any]:
    fields: dict[str, Any] = {"method": spec.method, "num_speculative_tokens": spec.tokens}
    if isinstance(spec, NgramSpeculation):
        return fields | {"prompt_lookup_min": spec.lookup_min, "prompt_lookup_max": spec.lookup_max}
    return fields | {"model": spec.source}
