"""LoRA adapters for the bundled SmolLM2, as peft writes them: made, not trained."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

LAYERS, WIDTH, VALUE_WIDTH = 30, 576, 192
TARGETS = {"q_proj": WIDTH, "v_proj": VALUE_WIDTH}


def write_adapter(folder: Path, *, scale: float, rank: int = 8) -> Path:
    """An adapter of random matrices; one of scale 0 changes nothing."""
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "bundled/smollm2",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(_weights(scale, rank), folder / "adapter_model.safetensors")
    return folder


def _weights(scale: float, rank: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    weights = {}
    for layer in range(LAYERS):
        for target, width in TARGETS.items():
            place = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            weights[f"{place}.lora_A.weight"] = torch.randn(rank, WIDTH, generator=random)
            weights[f"{place}.lora_B.weight"] = scale * torch.randn(width, rank, generator=random)
    return weights
