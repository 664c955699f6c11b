from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.config import VllmSpec
from cluster.sizing import CPU_ENGINE_GIB, ENGINE_GIB, GIB, Facts, ModelSize, cpu_bytes, read_facts, size_of

LLAMA_8B = {
    "torch_dtype": "bfloat16",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
}


def vllm(**fields: Any) -> VllmSpec:
    return VllmSpec(**({"name": "m", "engine": "vllm", "source": "x/y", "accelerator_type": "L4"} | fields))


def folder(path: Path, config: object, *sizes: int) -> Path:
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for index, size in enumerate(sizes):
        with (path / f"model-{index}.safetensors").open("wb") as file:
            file.truncate(size)
    return path


def test_the_files_of_a_model_tell_its_size(tmp_path: Path) -> None:
    facts = read_facts(folder(tmp_path, LLAMA_8B, 10_000, 6_000))
    assert facts == Facts(16_000, "bfloat16", False, 32, 32, 8, 2 * 8 * 128)
    size = size_of(vllm(), facts)
    assert size is not None
    assert size.weights_bytes == 16_000
    assert size.kv_bytes_per_token == 131_072, "128 KiB a token, as of Llama 3 8B"


def test_a_model_of_several_kinds_says_so_of_its_text_part(tmp_path: Path) -> None:
    facts = read_facts(folder(tmp_path, {"text_config": LLAMA_8B, "quantization_config": {}}))
    assert (facts.heads, facts.quantized, facts.stored_bytes) == (32, True, None)


def test_latent_attention_keeps_one_vector(tmp_path: Path) -> None:
    config = {
        "num_attention_heads": 128,
        "num_hidden_layers": 61,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
    }
    facts = read_facts(folder(tmp_path, config))
    assert (facts.kv_heads, facts.kv_numbers) == (1, 576)


@pytest.mark.parametrize("config", ["", "[]", "{", {"num_attention_heads": "many", "hidden_size": True}])
def test_what_is_odd_is_not_known(tmp_path: Path, config: object) -> None:
    assert read_facts(folder(tmp_path, config)) == Facts()
    assert size_of(vllm(), Facts()) is None


@pytest.mark.parametrize(
    ("fields", "facts", "expected"),
    [
        ({"parameters": "1b"}, Facts(), 2e9),
        ({"parameters": "1b", "dtype": "float32"}, Facts(), 4e9),
        ({"parameters": "1b", "accelerator_type": None}, Facts(), 4e9),
        ({"parameters": "1b", "quantization": "fp8"}, Facts(), 1e9),
        ({"quantization": "fp8"}, Facts(stored_bytes=16, dtype="bfloat16"), 8),
        ({"quantization": "awq"}, Facts(stored_bytes=16, dtype="float16", quantized=True), 16),
        ({}, Facts(stored_bytes=16, dtype="float32"), 8),
    ],
)
def test_the_weights_as_they_are_loaded(fields: dict[str, Any], facts: Facts, expected: float) -> None:
    size = size_of(vllm(**fields), facts)
    assert size is not None
    assert size.weights_bytes == expected


def test_what_each_accelerator_must_have() -> None:
    size = ModelSize(16 * GIB, heads=32, layers=32, kv_bytes_per_token=GIB / 1024, kv_heads=2)
    assert size.accelerator_gib(1, 1, 2048) == 16 + 2 + ENGINE_GIB
    assert size.accelerator_gib(2, 2, 2048) == 4 + 0.5 + ENGINE_GIB
    assert size.accelerator_gib(4, 1, 2048) == 4 + 1 + ENGINE_GIB, "two heads cannot be in four places"


def test_how_many_calls_there_is_room_for() -> None:
    size = ModelSize(16 * GIB, kv_bytes_per_token=GIB / 1024)
    assert size.contexts(16 + ENGINE_GIB + 8, 1, 1, 2048) == 4
    assert size.contexts(10, 1, 1, 2048) == 0
    assert ModelSize(1).contexts(10, 1, 1, 2048) is None


def test_the_memory_of_a_replica_on_cpu() -> None:
    size = ModelSize(1 * GIB)
    assert cpu_bytes(vllm(accelerator_type=None, kv_cache_gib=2), size) == (1 + 2 + CPU_ENGINE_GIB) * GIB
