"""What a person says of the models: one frozen spec for each kind of engine.

Specs are checked when they are loaded, by name and with the field at fault; nothing here starts anything.
"""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cluster.engines.fake import FakeScript

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


CPU_STEP_TOKENS = 512
"""Of prompts and next tokens together: about a second of work for a small model on two cores."""


class Spec(BaseModel):
    """Base of every part of the configuration: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Dollars = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=18)]


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


class ReplicatedSpec(PoolSpec):
    """A model that runs on this cluster."""

    replicas: int = Field(default=1, ge=1, le=1024)
    num_cpus: float = Field(default=1, ge=0)
    """Logical CPUs that Ray books for each replica."""
    max_ongoing_requests: int = Field(default=256, ge=1)
    """Calls in one replica at once; its engine batches them."""
    max_queued_requests: int = Field(default=1024, ge=-1)
    """Calls that may wait in one caller for a replica; more are refused with 503. -1 is no bound."""

    @field_validator("max_queued_requests")
    @classmethod
    def _queue_holds_something(cls, bound: int) -> int:
        if bound == 0:  # Ray Serve refuses it, but only once it deploys
            raise ValueError("must be at least 1, or -1 for no bound")
        return bound


class VllmSpec(ReplicatedSpec):
    """A generative model on vLLM. The accelerator fields left out mean CPU."""

    engine: Literal["vllm"]
    source: str
    """Model folder, Hugging Face id, or `bundled/smollm2`."""
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
    cpu_cores: list[Annotated[str, Field(pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$")]] = []
    """Cores of each replica on a host, such as ["0-3", "4-7"]. Default: all, divided evenly."""
    accelerator_type: str | None = None
    """Ray's name of the accelerator, such as "H100" or "L4"."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    pipeline_parallel_size: int = Field(default=1, ge=1)
    quantization: Literal["awq", "gptq", "fp8", "compressed-tensors", "bitsandbytes"] | None = None
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    tool_parser: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,64}$")
    """vLLM's name of how the model writes the calls of tools, such as `hermes` or `llama3_json`. Without it
    vLLM tells of no calls of tools."""

    @property
    def task(self) -> Literal["generate"]:
        return "generate"

    @property
    def on_cpu(self) -> bool:
        return self.accelerator_type is None

    @property
    def step_tokens(self) -> int | None:
        """Tokens of one step of the engine; None for what vLLM takes. Each sequence has room for one."""
        if self.max_num_batched_tokens is None and not self.on_cpu:
            return None
        return max(self.max_num_batched_tokens or CPU_STEP_TOKENS, self.max_num_seqs)

    @model_validator(mode="after")
    def _accelerator_fields_agree(self) -> VllmSpec:
        if self.on_cpu and self.tensor_parallel_size * self.pipeline_parallel_size > 1:
            raise ValueError("tensor_parallel_size and pipeline_parallel_size need an accelerator_type")
        if not self.on_cpu and self.cpu_cores:
            raise ValueError("cpu_cores is for CPU replicas; leave it out with an accelerator_type")
        return self

    def core_lists(self) -> list[str]:
        """One core list for each CPU replica of a host."""
        if not self.on_cpu:
            return []
        if self.cpu_cores:
            return list(self.cpu_cores)
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // self.replicas)
        slices = [cores[start : start + share] for start in range(0, share * self.replicas, share)]
        return [",".join(map(str, cores_of_one or cores)) for cores_of_one in slices]


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


class FakeSpec(ReplicatedSpec):
    """A deterministic stand-in: scripted answers, latency and failures."""

    engine: Literal["fake"]
    task: Literal["generate", "embed"] = "generate"
    num_cpus: float = Field(default=0.1, ge=0)
    script: dict[str, Any] = {}
    """Fields of `cluster.engines.fake.FakeScript`."""

    @field_validator("script")
    @classmethod
    def _script_is_known(cls, script: dict[str, Any]) -> dict[str, Any]:
        try:
            msgspec.convert(script, FakeScript)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error
        return script


class OpenAISpec(PoolSpec):
    """A model behind a remote OpenAI-compatible endpoint."""

    engine: Literal["openai"]
    base_url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    """Up to and with the version, such as "https://api.example.com/v1"."""
    model: str | None = None
    """The provider's name of the model. Default: ours."""
    task: Literal["generate", "embed"] = "generate"
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*$")
    """Environment variable that holds the key. The key itself never stands in a config file."""
    tokenizer: str | None = None
    """Folder with the model's tokenizer. Without one, quotas reserve an upper bound."""
    max_connections: int = Field(default=256, ge=1)


ModelSpec = Annotated[VllmSpec | OnnxSpec | FakeSpec | OpenAISpec, Field(discriminator="engine")]
