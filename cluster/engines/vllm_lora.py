"""What keeps adapters off calls of their base model that are in the same batch, on CPU.

vLLM marks the rows of a batch that have no adapter with the index -1. Its kernels for GPUs leave these rows
alone; its PyTorch operators for CPUs take -1 for the last adapter, and the base answers with that one's
weights (found in 0.32.0 by `tests/cluster/engines/test_vllm.py`; vLLM pull request 48421 is about it). The
operators are linear, so that rows of zeros come out as nothing:

    rows       base   legal   base          index   -1   0   -1
    inputs      x       y      z      ─►             0   y    0

Imported by the worker inside the engine's process, through vLLM's own `worker_extension_cls`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPERATORS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")


class LoraOnCpu:
    """What vLLM's worker can be asked to do beside its own methods."""

    def leave_base_rows_alone(self) -> None:
        """From now on adapters touch only the rows that have one."""
        from vllm.lora.ops.torch_ops import lora_ops  # heavy, and there already where this runs
        from vllm.lora.punica_wrapper import punica_cpu

        for name in OPERATORS:
            operator = only_rows_with_adapters(getattr(lora_ops, name))
            setattr(lora_ops, name, operator)
            setattr(punica_cpu, name, operator)


def only_rows_with_adapters(operator: Callable[..., None]) -> Callable[..., None]:
    """The operator, which is linear in its inputs, without the rows whose index is negative.

    Its first four arguments are the inputs (rows, width), the weights of all adapters, the output, and the
    index of each row's adapter (rows).
    """

    def masked(inputs: Any, weights: Any, output: Any, indices: Any, *rest: Any, **named: Any) -> None:
        with_adapter = (indices >= 0).to(inputs.dtype).unsqueeze(1)
        operator(inputs * with_adapter, weights, output, indices, *rest, **named)

    return masked
