"""LoRA adapters: models of their own that share the replicas of the model they were trained on.

    models:
      - {name: qwen, engine: vllm, source: Qwen/Qwen3-8B, loras: {max_rank: 16}}     2 replicas
      - {name: legal, engine: lora, base: qwen, source: ./adapters/legal}            on the same two

An adapter has the context and the price of its base where it names none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.config import FakeSpec, LoraSpec, ModelSpec, PoolSpec, ReplicatedSpec, VllmSpec
from cluster.errors import ConfigError

MAX_CONFIG_BYTES = 1024 * 1024
CONFIG_FILE = "adapter_config.json"


def with_bases(specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """The same models, adapters with what they have from their bases.

    Raises `ValueError` for an adapter whose base is none of them, cannot take adapters, or has less context.
    """
    return [_with_base(spec, specs) if isinstance(spec, LoraSpec) else spec for spec in specs]


def host_of(spec: ModelSpec, specs: Sequence[ModelSpec]) -> ModelSpec:
    """The model on whose replicas a model runs: itself, or the base of an adapter."""
    if not isinstance(spec, LoraSpec):
        return spec
    return next(each for each in specs if each.name == spec.base)


def adapters_of(base: PoolSpec, specs: Sequence[ModelSpec]) -> list[LoraSpec]:
    """The adapters on that model."""
    return [spec for spec in specs if isinstance(spec, LoraSpec) and spec.base == base.name]


def takes_adapters(spec: PoolSpec) -> bool:
    """Whether replicas of the model can load adapters. The scripted engine plays along."""
    if isinstance(spec, VllmSpec):
        return spec.loras is not None
    return isinstance(spec, FakeSpec) and spec.task == "generate"


def check_files(adapter: LoraSpec, base: ReplicatedSpec) -> None:
    """Raises `ConfigError` for an adapter in a folder of this machine that its base cannot load.

    What is somewhere else shows only once a replica reads it.
    """
    folder = Path(adapter.source)
    if not isinstance(base, VllmSpec) or base.loras is None or not folder.is_absolute():
        return
    rank = _config(adapter.name, folder / CONFIG_FILE).get("r")
    if not isinstance(rank, int) or rank > base.loras.max_rank:
        raise ConfigError(
            f"the adapter {adapter.name} has rank {rank}, and loras.max_rank of {base.name} is"
            f" {base.loras.max_rank}",
            param="source",
        )


def _with_base(adapter: LoraSpec, specs: Sequence[ModelSpec]) -> LoraSpec:
    base = next((spec for spec in specs if spec.name == adapter.base), None)
    if base is None:
        able = ", ".join(spec.name for spec in specs if takes_adapters(spec)) or "none that takes adapters"
        raise ValueError(f"{adapter.name}.base: there is no model {adapter.base!r}; there is {able}")
    if not takes_adapters(base):
        raise ValueError(
            f"{adapter.name}.base: {base.name} takes no adapters; give it `loras: {{}}`, and engine vllm"
        )
    inherited = {
        name: getattr(base, name) for name in ("max_context", "price") if name not in adapter.model_fields_set
    }
    whole = adapter.model_copy(update=inherited)
    if whole.max_context > base.max_context:
        raise ValueError(
            f"{adapter.name}.max_context ({whole.max_context}) is more than that of {base.name},"
            f" {base.max_context}"
        )
    return whole


def _config(name: str, file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{file} is larger than {MAX_CONFIG_BYTES} bytes", param="source")
        config = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"the adapter {name} has no {file}", param="source") from error
    except ValueError as error:
        raise ConfigError(f"{file} of the adapter {name} is not JSON", param="source") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} of the adapter {name} is no JSON object", param="source")
    return config
