from __future__ import annotations

from typing import Any

import torch

from cluster.engines.vllm_lora import only_rows_with_adapters


def gathered(inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0) -> None:
    """As vLLM's operators for CPUs do it, where -1 is the last adapter."""
    output += scaling * torch.einsum("bi, boi -> bo", inputs, weights[indices])


def test_rows_without_an_adapter_are_left_alone_and_others_are_as_they_were() -> None:
    random = torch.Generator().manual_seed(7)
    inputs = torch.randn(4, 8, generator=random)
    weights = torch.randn(2, 3, 8, generator=random)
    indices = torch.tensor([-1, 0, 1, -1])
    plain, masked = torch.ones(4, 3), torch.ones(4, 3)
    gathered(inputs, weights, plain, indices, scaling=2.0)
    only_rows_with_adapters(gathered)(inputs, weights, masked, indices, scaling=2.0)
    assert not torch.equal(plain[0], torch.ones(3)), "the operator takes -1 for the last adapter"
    assert torch.equal(masked[[0, 3]], torch.ones(2, 3))
    assert torch.equal(masked[1:3], plain[1:3])
