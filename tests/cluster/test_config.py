from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cluster.config import AnthropicSpec, FakeSpec, ModelSpec, OnnxSpec, OpenAISpec, VllmSpec

MINIMAL: dict[str, dict[str, Any]] = {
    "vllm": {"name": "m", "engine": "vllm", "source": "bundled/smollm2"},
    "onnx": {"name": "m", "engine": "onnx", "source": "bundled/minilm"},
    "fake": {"name": "m", "engine": "fake"},
    "openai": {"name": "m", "engine": "openai", "base_url": "https://api.example.com/v1"},
    "anthropic": {"name": "m", "engine": "anthropic", "base_url": "https://api.example.com/v1"},
}


def load(engine: str, **fields: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(ModelSpec)
    return adapter.validate_python(MINIMAL[engine] | fields)


@pytest.mark.parametrize(
    ("engine", "kind", "task"),
    [
        ("vllm", VllmSpec, "generate"),
        ("onnx", OnnxSpec, "embed"),
        ("fake", FakeSpec, "generate"),
        ("openai", OpenAISpec, "generate"),
        ("anthropic", AnthropicSpec, "generate"),
    ],
)
def test_the_engine_decides_the_spec_and_the_rest_has_defaults(engine: str, kind: Any, task: str) -> None:
    spec = load(engine)
    assert isinstance(spec, kind)
    assert spec.task == task
    assert spec.default_max_tokens < spec.max_context


WRONG: list[tuple[str, dict[str, Any], str]] = [
    *(("fake", {"name": name}, "name") for name in ("", "-a", "a/b", "a b", "a" * 65, 3)),
    ("fake", {"max_context": 15}, "max_context"),
    ("fake", {"default_max_tokens": 0}, "default_max_tokens"),
    ("fake", {"max_context": 64, "default_max_tokens": 64}, "default_max_tokens"),
    ("fake", {"replicas": 0}, "replicas"),
    ("fake", {"replicas": 1025}, "replicas"),
    ("fake", {"num_cpus": -1}, "num_cpus"),
    ("fake", {"max_ongoing_requests": 0}, "max_ongoing_requests"),
    ("fake", {"max_queued_requests": 0}, "max_queued_requests"),
    ("fake", {"max_queued_requests": -2}, "max_queued_requests"),
    ("fake", {"task": "train"}, "task"),
    ("fake", {"script": {"rules": [{"contains": 1}]}}, "contains"),
    ("fake", {"script": {"speed": 1}}, "speed"),
    ("fake", {"script": {"tokens_per_batch": 0}}, "tokens_per_batch"),
    ("fake", {"script": {"dimension": 0}}, "dimension"),
    ("fake", {"script": {"token_s": -1.0}}, "token_s"),
    ("vllm", {"source": None}, "source"),
    ("vllm", {"dtype": "int8"}, "dtype"),
    ("vllm", {"max_num_seqs": 0}, "max_num_seqs"),
    ("vllm", {"max_num_batched_tokens": 8}, "max_num_batched_tokens"),
    ("vllm", {"block_size": 24}, "block_size"),
    ("vllm", {"kv_cache_gib": 0}, "kv_cache_gib"),
    *(("vllm", {"cpu_cores": [cores]}, "cpu_cores") for cores in ("", "a", "1-", "0-3,", "0;3")),
    ("vllm", {"tensor_parallel_size": 0}, "tensor_parallel_size"),
    ("vllm", {"pipeline_parallel_size": 0}, "pipeline_parallel_size"),
    ("vllm", {"tensor_parallel_size": 2}, "accelerator_type"),
    ("vllm", {"pipeline_parallel_size": 2}, "accelerator_type"),
    ("vllm", {"accelerator_type": "L4", "cpu_cores": ["0-3"]}, "cpu_cores"),
    ("vllm", {"quantization": "q4"}, "quantization"),
    ("vllm", {"tool_parser": "../hermes"}, "tool_parser"),
    ("vllm", {"gpu_memory_utilization": 0}, "gpu_memory_utilization"),
    ("vllm", {"gpu_memory_utilization": 1.1}, "gpu_memory_utilization"),
    *((engine, {"num_gpus": 0.5}, "num_gpus needs an accelerator_type") for engine in ("vllm", "fake")),
    *(
        ("fake", {"accelerator_type": "L4", "num_gpus": part}, "num_gpus\n.*at least 0.01, with at most four")
        for part in (0, -0.5, 0.001, 0.33333, "nan")
    ),
    *(
        (
            "fake",
            {"accelerator_type": "L4", "num_gpus": many},
            "at most 1.*for several take tensor_parallel_s",
        )
        for many in (1.5, 2, "inf")
    ),
    *(
        ("fake", {"accelerator_type": "L4", "num_gpus": 0.5, size: 2}, "the 2 workers.*leave it out")
        for size in ("tensor_parallel_size", "pipeline_parallel_size")
    ),
    (
        "vllm",
        {"accelerator_type": "L4", "num_gpus": 0.25, "gpu_memory_utilization": 0.9},
        r"gpu_memory_utilization \(0.9\) must be at most num_gpus \(0.25\).*left out it is 0.225",
    ),
    ("onnx", {"num_gpus": 0.5}, "no such field"),
    ("onnx", {"threads": 0}, "threads"),
    *(
        ("openai", {"base_url": url}, "base_url")
        for url in ("api.example.com", "ftp://a/b", "https://", "https://a b")
    ),
    *(("openai", {"api_key_env": name}, "api_key_env") for name in ("sk-live-123", "key", "", "1A")),
    ("openai", {"max_connections": 0}, "max_connections"),
    ("anthropic", {"base_url": "file:///etc/passwd"}, "base_url"),
    ("anthropic", {"api_key_env": "KEY", "api_key_file": "/run/key"}, "not in both"),
    ("anthropic", {"task": "embed"}, "task"),
]


@pytest.mark.parametrize(("engine", "fields", "named"), WRONG)
def test_a_wrong_value_is_refused_by_name(engine: str, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        load(engine, **fields)


@pytest.mark.parametrize("engine", MINIMAL)
def test_an_unknown_field_is_refused_by_name(engine: str) -> None:
    with pytest.raises(ValidationError, match="colour"):
        load(engine, colour="red")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValidationError, match="engine"):
        TypeAdapter(ModelSpec).validate_python({"name": "m", "engine": "llamacpp"})


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load("fake").name = "other"


@pytest.mark.parametrize(
    ("cores", "replicas", "lists"),
    [
        ({0, 1}, 1, ["0,1"]),
        ({0, 1, 2, 3}, 2, ["0,1", "2,3"]),
        ({8, 1, 3}, 2, ["1", "3"]),
        ({0, 1}, 3, ["0", "1", "0,1"]),
        ({0, 1, 2, 3, 4, 5, 6, 7}, 3, ["0,1", "2,3", "4,5"]),
    ],
)
def test_replicas_of_a_host_share_its_cores_evenly(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], replicas: int, lists: list[str]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: cores)
    assert load("vllm", replicas=replicas).core_lists() == lists


def test_cores_that_are_named_are_taken_as_they_are() -> None:
    assert load("vllm", replicas=2, cpu_cores=["0-3", "4,6-7"]).core_lists() == ["0-3", "4,6-7"]


def test_an_accelerator_needs_no_core_lists() -> None:
    spec = load("vllm", accelerator_type="H100", tensor_parallel_size=2, quantization="fp8")
    assert not spec.on_cpu
    assert spec.core_lists() == []


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 512),
        ({"max_num_batched_tokens": 128}, 128),
        ({"max_num_seqs": 1024}, 1024),
        ({"accelerator_type": "H100"}, None),
        ({"accelerator_type": "H100", "max_num_batched_tokens": 4096}, 4096),
    ],
)
def test_a_step_is_short_on_cpu_and_has_room_for_each_sequence(
    fields: dict[str, Any], tokens: int | None
) -> None:
    assert load("vllm", **fields).step_tokens == tokens


@pytest.mark.parametrize(
    ("said", "number"), [("8b", 8 * 10**9), ("70.6B", 70_600_000_000), ("135m", 135 * 10**6), (7, 7)]
)
def test_parameters_are_said_as_people_say_them(said: str | int, number: int) -> None:
    spec = VllmSpec(name="m", engine="vllm", source="x/y", parameters=said)  # type: ignore[arg-type]
    assert spec.parameters == number


@pytest.mark.parametrize("said", ["many", "b", "0b", "infb", -1])
def test_parameters_that_are_no_number_are_refused(said: str | int) -> None:
    with pytest.raises(ValidationError, match="parameters"):
        VllmSpec(name="m", engine="vllm", source="x/y", parameters=said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "gpus", "memory"),
    [
        ({}, 1, 0.9),
        ({"num_gpus": 1}, 1, 0.9),
        ({"num_gpus": 0.25}, 0.25, 0.225),
        ({"num_gpus": 0.3333}, 0.3333, 0.29997),
        ({"num_gpus": 0.25, "gpu_memory_utilization": 0.25}, 0.25, 0.25),
        ({"gpu_memory_utilization": 0.5}, 1, 0.5),
        ({"tensor_parallel_size": 2}, 1, 0.9),
    ],
)
def test_of_a_part_of_a_gpu_the_engine_uses_that_part_of_its_memory(
    fields: dict[str, Any], gpus: float, memory: float
) -> None:
    spec = load("vllm", accelerator_type="L4", **fields)
    assert (spec.worker_gpus, spec.memory_share) == (gpus, memory)


def test_a_fake_can_stand_in_for_a_model_on_accelerators() -> None:
    spec = FakeSpec(name="f", engine="fake", accelerator_type="L4", tensor_parallel_size=2)
    assert not spec.on_cpu
    with pytest.raises(ValidationError, match="need an accelerator_type"):
        FakeSpec(name="f", engine="fake", tensor_parallel_size=2)
