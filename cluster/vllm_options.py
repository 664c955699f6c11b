"""Parts of the spec of a model on vLLM: names that vLLM knows, guessing ahead, and room for adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cluster.spec import Spec

Quantization = Literal[
    "awq",
    "awq_marlin",
    "gptq",
    "gptq_marlin",
    "compressed-tensors",
    "modelopt",
    "modelopt_fp4",
    "quark",
    "torchao",
    "mxfp4",
    "fp8",
    "fp8_per_tensor",
    "fp8_per_block",
    "mxfp8",
    "experts_int8",
    "int8_per_channel_weight_only",
]
"""vLLM's names, all of them in the version that we install: a test compares them."""

CacheDtype = Literal[
    "auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_per_token_head", "int8_per_token_head"
]


class NgramSpeculation(Spec):
    """Next tokens are guessed from what followed the same words earlier in prompt and answer."""

    method: Literal["ngram"]
    tokens: int = Field(default=3, ge=1, le=32)
    """Guessed at a time; the model then checks them all in one step."""
    lookup_min: int = Field(default=2, ge=1, le=64)
    """Fewest and most tokens that have to be the same."""
    lookup_max: int = Field(default=4, ge=1, le=64)

    @model_validator(mode="after")
    def _least_is_not_above_most(self) -> NgramSpeculation:
        if self.lookup_min > self.lookup_max:
            raise ValueError(f"lookup_min ({self.lookup_min}) is above lookup_max ({self.lookup_max})")
        return self


class DraftSpeculation(Spec):
    """Next tokens are guessed by a small model: one of the same vocabulary, or a head made for this model."""

    method: Literal["draft_model", "eagle", "eagle3"]
    source: str
    """Folder or Hugging Face id of the small model."""
    tokens: int = Field(default=3, ge=1, le=32)
    """Guessed at a time; the model then checks them all in one step."""


Speculation = Annotated[NgramSpeculation | DraftSpeculation, Field(discriminator="method")]


class LoraSlots(Spec):
    """Room for LoRA adapters beside a model. Each is a model of its own, with `engine: lora`."""

    max_active: int = Field(default=4, ge=1, le=256)
    """Adapters in one batch. Their room is taken from the memory of the KV cache, used or not."""
    max_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 16
    """Of the largest adapter."""
    max_cached: int = Field(default=16, ge=1, le=4096)
    """Adapters kept in main memory; those beyond are read again when they are called."""

    @model_validator(mode="after")
    def _what_is_active_is_cached(self) -> LoraSlots:
        if self.max_cached < self.max_active:
            raise ValueError(f"max_cached ({self.max_cached}) is below max_active ({self.max_active})")
        return self
