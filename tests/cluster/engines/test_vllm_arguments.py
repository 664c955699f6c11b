"""Each field of the spec reaches vLLM under a name and with a value that the installed vLLM has.

vLLM's sources are read, not imported: that would take longer than all of these tests.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from cluster.config import VllmSpec
from cluster.engines.vllm_arguments import engine_arguments
from cluster.vllm_options import CacheDtype, LoraSlots, Quantization


def spec(**fields: Any) -> VllmSpec:
    return VllmSpec(**{"name": "m", "engine": "vllm", "source": "org/model"} | fields)


@cache
def sources() -> Path:
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def tree(file: str) -> ast.Module:
    return ast.parse((sources() / file).read_text())


def fields_of(file: str, name: str) -> set[str]:
    """The annotated fields of a class."""
    (found,) = [node for node in ast.walk(tree(file)) if isinstance(node, ast.ClassDef) and node.name == name]
    return {
        node.target.id
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def names_of(file: str, name: str) -> set[Any]:
    """The strings and numbers in the value that a module gives a name, as in a `Literal`."""
    for node in ast.walk(tree(file)):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name:
            return {each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)}
    raise AssertionError(f"{file} has no {name}")


GPU = {"accelerator_type": "H100"}
TABLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_context": 4096}, {"max_model_len": 4096}),
    ({"max_num_seqs": 7}, {"max_num_seqs": 7}),
    ({}, {"max_num_batched_tokens": 512, "dtype": "float32", "enforce_eager": True}),
    (GPU, {"dtype": "auto", "enforce_eager": False}),
    (GPU | {"max_num_batched_tokens": 4096}, {"max_num_batched_tokens": 4096}),
    ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    ({"enforce_eager": False}, {"enforce_eager": False}),
    ({"block_size": 64}, {"block_size": 64}),
    ({}, {"scheduling_policy": "priority", "enable_prefix_caching": True}),
    ({"prefix_caching": False}, {"enable_prefix_caching": False}),
    (
        GPU | {"tensor_parallel_size": 4, "pipeline_parallel_size": 2},
        {"tensor_parallel_size": 4, "pipeline_parallel_size": 2},
    ),
    (GPU | {"gpu_memory_utilization": 0.8}, {"gpu_memory_utilization": 0.8}),
    (GPU | {"num_gpus": 0.25}, {"gpu_memory_utilization": 0.225}),
    *((GPU | {"quantization": name}, {"quantization": name}) for name in get_args(Quantization)),
    *(({"kv_cache_dtype": name}, {"kv_cache_dtype": name}) for name in get_args(CacheDtype)),
    ({"guided_decoding": "guidance"}, {"structured_outputs_config": {"backend": "guidance"}}),
    ({"revision": "v1.2"}, {"revision": "v1.2", "tokenizer_revision": "v1.2"}),
    (
        {"tool_parser": "hermes"},
        {
            "enable_auto_tool_choice": True,
            "tool_call_parser": "hermes",
            "tool_strict_level": "parameter",
        },
    ),
    (
        {"loras": {"max_active": 2, "max_rank": 64, "max_cached": 8}},
        {"enable_lora": True, "max_loras": 2, "max_lora_rank": 64, "max_cpu_loras": 8},
    ),
    (
        {"speculative": {"method": "ngram", "tokens": 5, "lookup_min": 1, "lookup_max": 3}},
        {
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 5,
                "prompt_lookup_min": 1,
                "prompt_lookup_max": 3,
            }
        },
    ),
    *(
        (
            {"speculative": {"method": method, "source": "org/small"}},
            {"speculative_config": {"method": method, "num_speculative_tokens": 3, "model": "org/small"}},
        )
        for method in ("draft_model", "eagle", "eagle3")
    ),
]


@pytest.mark.parametrize(("fields", "wanted"), TABLE)
def test_a_field_becomes_an_argument(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert wanted.items() <= engine_arguments(spec(**fields)).items()


@pytest.mark.parametrize(
    "absent",
    [
        *("max_num_batched_tokens", "quantization", "revision", "speculative_config", "enable_lora"),
        "tool_call_parser",
    ],
)
def test_what_nobody_asks_for_is_left_to_vllm(absent: str) -> None:
    assert absent not in engine_arguments(spec(**GPU))


def test_cpu_replicas_say_nothing_of_gpus() -> None:
    assert not {"gpu_memory_utilization", "tensor_parallel_size"} & engine_arguments(spec()).keys()


def test_vllm_has_every_argument() -> None:
    given = {name for fields, _ in TABLE for name in engine_arguments(spec(**fields))}
    of_its_server = fields_of("entrypoints/launchers/cli_args.py", "BaseFrontendArgs")
    assert given <= fields_of("engine/arg_utils.py", "EngineArgs") | of_its_server


def test_vllm_has_every_field_of_guessing_ahead() -> None:
    given = {
        name for fields, _ in TABLE for name in engine_arguments(spec(**fields)).get("speculative_config", {})
    }
    assert given <= fields_of("config/speculative.py", "SpeculativeConfig")
    methods = names_of("config/speculative.py", "SpeculativeMethod") | names_of(
        "config/speculative.py", "EagleModelTypes"
    )
    assert {"ngram", "draft_model", "eagle", "eagle3"} <= methods


@pytest.mark.parametrize(
    ("ours", "file", "theirs"),
    [
        (Quantization, "model_executor/layers/quantization/__init__.py", "QuantizationMethods"),
        (CacheDtype, "config/cache.py", "CacheDType"),
    ],
)
def test_vllm_has_every_name(ours: Any, file: str, theirs: str) -> None:
    assert set(get_args(ours)) <= names_of(file, theirs)


def test_vllm_has_every_backend_and_rank() -> None:
    backends = set(get_args(VllmSpec.model_fields["guided_decoding"].annotation))
    assert backends <= names_of("config/structured_outputs.py", "StructuredOutputsBackend")
    ranks = set(get_args(LoraSlots.model_fields["max_rank"].annotation))
    assert ranks <= names_of("config/lora.py", "MaxLoRARanks")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"quantization": "int8"}, "int8_per_channel_weight_only"),
        ({"kv_cache_dtype": "int8"}, "int8_per_token_head"),
        ({"guided_decoding": "xgramar"}, "xgrammar"),
        ({"speculative": {"method": "medusa", "tokens": 3}}, "ngram"),
        ({"speculative": {"method": "draft_model"}}, "source"),
        ({"speculative": {"method": "ngram", "lookup_min": 5}}, "lookup_max"),
        ({"speculative": {"method": "ngram", "tokens": 0}}, "tokens"),
        ({"loras": {"max_rank": 12}}, "max_rank"),
        ({"loras": {"max_active": 20}}, "max_cached"),
        ({"revision": "../x"}, "revision"),
        ({"revision": "v1", "source": "./model"}, "revision is for a Hugging Face id"),
        ({"quantisation": "fp8"}, "did you mean 'quantization'"),
        ({"loras": {"max_ranks": 8}}, "did you mean 'max_rank'"),
        ({"speculative": {"method": "ngram", "lookupmax": 4}}, "did you mean 'lookup_max'"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        spec(**fields)
