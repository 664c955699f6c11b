"""How much memory a model takes, before anything of it is loaded.

    weights / (TP·PP)  +  keys and values of one longest context / (TP·PP)  +  what the engine itself takes

must fit into the share of an accelerator's memory that the engine may use: an engine that has not even room
for one call of `max_context` refuses to start. What is left holds the keys and values of more calls.

Two numbers for every key-value head, layer and token: "Efficient Memory Management for Large Language Model
Serving with PagedAttention" (Kwon et al., SOSP'23), section 3; for latent attention one compressed vector
(DeepSeek-V2, section 2.1).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from cluster.config import VllmSpec

GIB = 2.0**30
ENGINE_GIB = 1.0
"""Activations of a step and what the device's libraries hold, on each accelerator."""
CPU_ENGINE_GIB = 2.5
"""Measured of a replica on CPU: its processes with everything but weights and cache."""
_DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_FOUR_BITS = {"awq", "awq_marlin", "gptq", "gptq_marlin", "modelopt_fp4", "mxfp4"}
_FOUR_BITS_BYTES, _EIGHT_BITS_BYTES = 0.6, 1.0
"""For a parameter, with its scales."""
_MAX_JSON_BYTES = 64 * 1024 * 1024


class Facts(msgspec.Struct, frozen=True):
    """What the files of a model say of it. None: they do not say."""

    stored_bytes: int | None = None
    dtype: str | None = None
    quantized: bool = False
    heads: int | None = None
    layers: int | None = None
    kv_heads: int | None = None
    kv_numbers: int | None = None
    """For a token and layer."""


class ModelSize(msgspec.Struct, frozen=True):
    """What a model takes of memory."""

    weights_bytes: float
    heads: int | None = None
    """Tensor parallelism divides them evenly."""
    layers: int | None = None
    """Pipeline parallelism divides them."""
    kv_bytes_per_token: float = 0.0
    """0 where it is not known."""
    kv_heads: int | None = None
    """Those that tensor parallelism can divide between accelerators; beyond, they are kept several times."""

    def accelerator_gib(self, tensor: int, pipeline: int, context: int) -> float:
        """What each of `tensor * pipeline` accelerators must have for the engine to start."""
        kv = self.kv_bytes_per_token * context / (min(tensor, self.kv_heads or tensor) * pipeline)
        return (self.weights_bytes / (tensor * pipeline) + kv) / GIB + ENGINE_GIB

    def contexts(self, usable_gib: float, tensor: int, pipeline: int, context: int) -> float | None:
        """How many calls of the longest context there is room for at once."""
        if not self.kv_bytes_per_token:
            return None
        room = usable_gib - ENGINE_GIB - self.weights_bytes / (tensor * pipeline) / GIB
        shared = min(tensor, self.kv_heads or tensor) * pipeline
        return max(0.0, room * GIB * shared / (self.kv_bytes_per_token * context))


def read_facts(folder: Path) -> Facts:
    """What `config.json` and the sizes of the weights say. Whatever is missing or odd is not known."""
    config = _json(folder / "config.json")
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    weights = [file.stat().st_size for file in sorted(folder.glob("*.safetensors"))]
    dtype = text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    heads, layers = _number(text, "num_attention_heads"), _number(text, "num_hidden_layers")
    return Facts(
        stored_bytes=sum(weights) or None,
        dtype=dtype if isinstance(dtype, str) else None,
        quantized="quantization_config" in config,
        heads=heads,
        layers=layers,
        kv_heads=_kv_heads(text, heads),
        kv_numbers=_kv_numbers(text, heads),
    )


def size_of(spec: VllmSpec, facts: Facts) -> ModelSize | None:
    """What a replica takes; None where neither its files nor `parameters` tell."""
    weights = _weights_bytes(spec, facts)
    if weights is None:
        return None
    numbers, layers = facts.kv_numbers or 0, facts.layers or 0
    return ModelSize(
        weights_bytes=weights,
        heads=facts.heads,
        layers=facts.layers,
        kv_bytes_per_token=float(numbers * layers * _kv_bytes(spec, facts)),
        kv_heads=facts.kv_heads,
    )


def cpu_bytes(spec: VllmSpec, size: ModelSize) -> float:
    """Main memory of a replica on CPU."""
    return size.weights_bytes + (spec.kv_cache_gib + CPU_ENGINE_GIB) * GIB


def _weights_bytes(spec: VllmSpec, facts: Facts) -> float | None:
    stored_as = _DTYPE_BYTES.get(facts.dtype or "", 2.0)
    if facts.stored_bytes is not None and facts.quantized:
        return float(facts.stored_bytes)
    parameters = spec.parameters
    if facts.stored_bytes is not None:
        parameters = round(facts.stored_bytes / stored_as)
    if parameters is None:
        return None
    loaded_as = _DTYPE_BYTES.get(_dtype(spec, facts), 2.0)
    if spec.quantization is not None:
        loaded_as = _FOUR_BITS_BYTES if spec.quantization in _FOUR_BITS else _EIGHT_BITS_BYTES
    return parameters * loaded_as


def _kv_bytes(spec: VllmSpec, facts: Facts) -> float:
    """Of a number in the cache; of those with eight bits the scales are small."""
    kept = _dtype(spec, facts) if spec.kv_cache_dtype == "auto" else spec.kv_cache_dtype
    return 1.0 if "8" in kept else _DTYPE_BYTES.get(kept, 2.0)


def _dtype(spec: VllmSpec, facts: Facts) -> str:
    if spec.dtype != "auto":
        return spec.dtype
    if spec.on_cpu:
        return "float32"
    # On accelerators vLLM takes 16 bits of a model that is stored in 32.
    return "bfloat16" if facts.dtype in (None, "float32") else facts.dtype


def _kv_heads(text: dict[str, Any], heads: int | None) -> int | None:
    if "kv_lora_rank" in text:
        return 1
    return _number(text, "num_key_value_heads") or heads


def _kv_numbers(text: dict[str, Any], heads: int | None) -> int | None:
    if latent := _number(text, "kv_lora_rank"):
        return latent + (_number(text, "qk_rope_head_dim") or 0)
    hidden, kv_heads = _number(text, "hidden_size"), _kv_heads(text, heads)
    width = _number(text, "head_dim") or (hidden // heads if hidden and heads else None)
    return None if width is None or kv_heads is None else 2 * kv_heads * width


def _number(config: dict[str, Any], name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file() or file.stat().st_size > _MAX_JSON_BYTES:
        return {}
    try:
        loaded = json.loads(file.read_text())
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
