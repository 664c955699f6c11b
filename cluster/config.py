"""What a person says of the models: one frozen spec for each kind of engine.

Specs are checked when they are loaded, by name and with the field at fault; nothing here starts anything.
"""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, field_validator, model_validator

from cluster.autoscaling.config import ScaledSpec
from cluster.engines.fake import FakeScript
from cluster.node_pools import PlacedSpec
from cluster.spec import Dollars, Spec
from cluster.vllm_options import CacheDtype, LoraSlots, Quantization, Speculation

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


LEAST_PART = 0.01
"""Of an accelerator."""
CPU_STEP_TOKENS = 512
"""Of prompts and next tokens together: about a second of work for a small model on two cores."""
MEMORY_SHARE = 0.9
"""Of an accelerator, or of the part of it that a replica takes: the rest is for what engines do not count."""


class TimePrice(Spec):
    """What the time of an engine costs."""

    per_hour: Dollars
    """US dollars for an hour of one replica. Calls that share it share its price."""


class TokenPrice(Spec):
    """What tokens cost, in US dollars for a million of them."""

    input_per_million: Dollars
    output_per_million: Dollars = Decimal(0)
    cached_input_per_million: Dollars | None = None
    """Of prompt tokens taken from the prefix cache. Default: as any other."""


class PoolSpec(Spec):
    """What every model has, whatever serves it."""

    name: ModelName
    """What callers write as `model`."""
    max_context: int = Field(default=2048, ge=16)
    """Tokens of prompt and output together."""
    default_max_tokens: int = Field(default=256, ge=1)
    """Output bound of a call that names none."""
    price: TimePrice | TokenPrice | None = None
    """What calls cost. Default: nothing; of a provider's model what the provider asks, if that is known."""

    @model_validator(mode="after")
    def _output_fits_context(self) -> PoolSpec:
        if self.default_max_tokens >= self.max_context:
            raise ValueError(
                f"default_max_tokens ({self.default_max_tokens}) must be less than "
                f"max_context ({self.max_context})"
            )
        return self


class ReplicatedSpec(PoolSpec, PlacedSpec, ScaledSpec):
    """A model that runs on this cluster."""

    num_cpus: float = Field(default=1, ge=0)
    """Logical CPUs that Ray books for each replica."""
    max_ongoing_requests: int = Field(default=1024, ge=1)
    """Calls in one replica at once, those that wait for their turn at its engine included. They wait here, in
    a fair order; of a queue that is nearly full a tenant that has filled it gets no more, but a 503."""
    max_queued_requests: int = Field(default=1024, ge=-1)
    """Calls that may wait in one caller until a replica has room, in the order in which they came; more are
    refused with 503. -1 is no bound."""

    @field_validator("max_queued_requests")
    @classmethod
    def _queue_holds_something(cls, bound: int) -> int:
        if bound == 0:  # Ray Serve refuses it, but only once it deploys
            raise ValueError("must be at least 1, or -1 for no bound")
        return bound


class AcceleratedSpec(ReplicatedSpec):
    """A model whose replicas may hold accelerators. The fields left out mean CPU."""

    accelerator_type: str | None = None
    """Ray's name of the accelerator, such as "H100" or "L4"."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """Accelerators of one node that share every layer."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Groups of these that follow each other, on one node or several."""
    num_gpus: float | None = None
    """As 0.25: the part of one accelerator that a replica takes; other models may have the rest. Default:
    whole ones."""

    @property
    def on_cpu(self) -> bool:
        return self.accelerator_type is None

    @property
    def worker_gpus(self) -> float:
        """What each worker of a replica on accelerators takes of one."""
        return 1.0 if self.num_gpus is None else self.num_gpus

    @field_validator("num_gpus")
    @classmethod
    def _part_of_one(cls, part: float | None) -> float | None:
        if part is None:
            return None
        if part > 1:
            raise ValueError(
                "must be at most 1: it is a part of one GPU; for several take tensor_parallel_size"
            )
        if not part >= LEAST_PART or round(part, 4) != part:
            raise ValueError(
                f"must be at least {LEAST_PART}, with at most four decimals, which Ray counts in: 0.3333"
            )
        return part

    @model_validator(mode="after")
    def _parallel_on_accelerators(self) -> AcceleratedSpec:
        workers = self.tensor_parallel_size * self.pipeline_parallel_size
        if self.on_cpu and workers > 1:
            raise ValueError("tensor_parallel_size and pipeline_parallel_size need an accelerator_type")
        if self.on_cpu and self.num_gpus is not None:
            raise ValueError("num_gpus needs an accelerator_type")
        if self.num_gpus is not None and workers > 1:
            raise ValueError(
                f"num_gpus is for a replica on one GPU; the {workers} workers of tensor_parallel_size "
                f"{self.tensor_parallel_size} and pipeline_parallel_size {self.pipeline_parallel_size} take "
                "whole ones: leave it out"
            )
        return self


_BILLIONS = {"m": 10**6, "b": 10**9, "t": 10**12}


def _parameters(given: object) -> object:
    """`8b`, `70.6B` and `135m` as numbers; anything else as it is."""
    if not isinstance(given, str) or given[-1:].lower() not in _BILLIONS:
        return given
    try:
        return round(float(given[:-1]) * _BILLIONS[given[-1].lower()])
    except (ValueError, OverflowError):
        return given


Parameters = Annotated[int, BeforeValidator(_parameters), Field(ge=1, le=10**14)]


class VllmSpec(AcceleratedSpec):
    """A generative model on vLLM. The accelerator fields left out mean CPU."""

    engine: Literal["vllm"]
    source: str
    """Model folder, Hugging Face id, or `bundled/smollm2`."""
    revision: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    """Branch, tag or commit of a Hugging Face id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """On CPU `auto` is float32, measured twice as fast as bfloat16 where the CPU has no AMX."""
    max_num_seqs: int = Field(default=32, ge=1)
    max_num_batched_tokens: int | None = Field(default=None, ge=32)
    """Tokens of one step of the engine, into which long prompts are cut. Default: 512 on CPU, where the 2048
    that vLLM takes hold up everybody else's next token for four seconds; on accelerators vLLM's own."""
    block_size: Literal[16, 32, 64, 128] = 32
    """Tokens of a KV block; a shared prefix shorter than one block is never found in the cache."""
    enforce_eager: bool | None = None
    """Skip graph capture. Default: on for CPU, where compiling costs two minutes and gains little."""
    kv_cache_gib: int = Field(default=1, ge=1)
    """KV cache of one CPU replica, in GiB."""
    cpu_cores: list[Annotated[str, Field(pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")]] = Field(
        default_factory=list
    )
    """Cores of each replica on a host, such as ["0-3", "4-7"]. Default: all, divided evenly."""
    parameters: Parameters | None = None
    """As `8b`: how large the model is, to check that it fits before it is downloaded. Default: read in its
    folder, where it is one."""
    quantization: Quantization | None = None
    """Of weights that say of themselves how they are quantised it need not be told."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Of the whole memory of each accelerator, what the engine may use. Default: 0.9, or of a part of one, as
    `num_gpus` says, 0.9 of that."""
    kv_cache_dtype: CacheDtype = "auto"
    """`auto` is that of the model. Smaller ones hold more tokens, and cost some accuracy."""
    prefix_caching: bool = True
    """Keep the beginnings of prompts, for each tenant its own."""
    speculative: Speculation | None = None
    """Guess tokens ahead: fewer steps for a lone stream, more work for a full batch."""
    loras: LoraSlots | None = None
    """Room for LoRA adapters. Default: none, and no memory is set aside."""
    guided_decoding: Literal["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"] = "auto"
    """What holds answers to a JSON schema."""
    tool_parser: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,64}$")
    """vLLM's name of how the model writes the calls of tools, such as `hermes` or `llama3_json`. Without it
    vLLM tells of no calls of tools."""

    @property
    def task(self) -> Literal["generate"]:
        return "generate"

    @property
    def usual_at_once(self) -> int:
        return self.max_num_seqs

    @property
    def memory_share(self) -> float:
        """Of the memory of each accelerator, what the engine may use."""
        return self.gpu_memory_utilization or round(MEMORY_SHARE * self.worker_gpus, 6)

    @property
    def step_tokens(self) -> int | None:
        """Tokens of one step of the engine; None for what vLLM takes. Each sequence has room for one."""
        if self.max_num_batched_tokens is None and not self.on_cpu:
            return None
        return max(self.max_num_batched_tokens or CPU_STEP_TOKENS, self.max_num_seqs)

    @model_validator(mode="after")
    def _accelerator_fields_agree(self) -> VllmSpec:
        if not self.on_cpu and self.cpu_cores:
            raise ValueError("cpu_cores is for CPU replicas; leave it out with an accelerator_type")
        said, part = self.gpu_memory_utilization, self.num_gpus
        if said is not None and part is not None and said > part:
            raise ValueError(
                f"gpu_memory_utilization ({said:g}) must be at most num_gpus ({part:g}): both are of the "
                f"whole GPU, of which others have the rest; left out it is {MEMORY_SHARE * part:g}"
            )
        return self

    @model_validator(mode="after")
    def _revision_is_of_an_id(self) -> VllmSpec:
        if self.revision is not None and self.source.startswith(("/", ".", "~", "bundled/")):
            raise ValueError("revision is for a Hugging Face id; files have none")
        return self

    def core_lists(self) -> list[str]:
        """One core list for each CPU replica of a host."""
        if not self.on_cpu:
            return []
        if self.cpu_cores:
            return list(self.cpu_cores)
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // self.most_replicas)
        slices = [cores[start : start + share] for start in range(0, share * self.most_replicas, share)]
        return [",".join(map(str, cores_of_one or cores)) for cores_of_one in slices]


class LoraSpec(PoolSpec):
    """A LoRA adapter: a model of its own for callers, keys and bills, on the replicas of its base."""

    engine: Literal["lora"]
    base: ModelName
    """Name of the model that it was trained on: one with `engine: vllm` and `loras`."""
    source: str
    """Folder with `adapter_config.json` and the weights, or Hugging Face id."""

    @property
    def task(self) -> Literal["generate"]:
        return "generate"


class OnnxSpec(ReplicatedSpec):
    """An embedding model on onnxruntime."""

    engine: Literal["onnx"]
    source: str
    """Folder with `model.onnx` and `tokenizer.json`, or `bundled/minilm`."""
    max_context: int = Field(default=512, ge=16)
    threads: int = Field(default=1, ge=1)
    """Cores that one call may use."""

    @property
    def task(self) -> Literal["embed"]:
        return "embed"


class FakeSpec(AcceleratedSpec):
    """A deterministic stand-in: scripted answers, latency and failures."""

    engine: Literal["fake"]
    task: Literal["generate", "embed"] = "generate"
    num_cpus: float = Field(default=0.1, ge=0)
    max_num_seqs: int = Field(default=256, ge=1)
    """Sequences that it makes at once; others wait for their turn."""
    script: dict[str, Any] = Field(default_factory=dict)
    """Fields of `cluster.engines.fake.FakeScript`."""

    @property
    def usual_at_once(self) -> int:
        return self.max_num_seqs if self.task == "generate" else 1

    @field_validator("script")
    @classmethod
    def _script_is_known(cls, script: dict[str, Any]) -> dict[str, Any]:
        try:
            msgspec.convert(script, FakeScript)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error
        return script


class RemoteSpec(PoolSpec):
    """A model of somebody else, reached over HTTP. Only this config says where: no caller can."""

    base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    """Up to and with the version, such as "https://api.example.com/v1"."""
    model: str | None = None
    """The provider's name of the model. Default: ours."""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*$")
    """Environment variable that holds the key. The key itself never stands in a config file."""
    api_key_file: Path | None = None
    """File that holds the key and nothing else, as a mounted secret does. Read when the gateway starts."""
    tokenizer: str | None = None
    """Folder with the model's tokenizer. Without one, quotas reserve an upper bound."""
    max_connections: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _one_key(self) -> RemoteSpec:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("the key is in api_key_env or in api_key_file, not in both")
        return self


class OpenAISpec(RemoteSpec):
    """A model behind a remote OpenAI-compatible endpoint."""

    engine: Literal["openai"]
    task: Literal["generate", "embed"] = "generate"


class AnthropicSpec(RemoteSpec):
    """A model behind Anthropic's Messages API, or an endpoint that speaks it."""

    engine: Literal["anthropic"]

    @property
    def task(self) -> Literal["generate"]:
        return "generate"


ModelSpec = Annotated[
    VllmSpec | LoraSpec | OnnxSpec | FakeSpec | OpenAISpec | AnthropicSpec, Field(discriminator="engine")
]
