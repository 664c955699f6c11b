"""The deployment classes: one replica is one engine in one Ray actor.

They are light to import, so that building an application never imports an engine; each imports its own
where it starts it.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from pathlib import Path

import msgspec
from ray import serve

from cluster.admission.queue import Capacity
from cluster.config import FakeSpec, OnnxSpec, ReplicatedSpec, VllmSpec
from cluster.engines import deadline, orphans
from cluster.engines.fake import FakeEngine, FakeScript
from cluster.engines.gauges import QueueMetrics
from cluster.engines.serving import EngineEndpoint
from cluster.garbage import collect_less_often
from cluster.messages import Generate, Message
from cluster.models import model_folder

WARM_UP_S = 300.0
"""Bound of the first chat, which compiles kernels on some devices."""

AHEAD = 16
"""One more call for so many sequences waits in the engine itself."""
READ_STEPS = 2
"""Steps of reading prompts that an engine is given at a time: one that it is at, and the next."""
STEP_TOKENS = 8192
"""Of one step, where vLLM decides."""


class VllmReplica(EngineEndpoint):
    """A vLLM engine; healthy once it has answered a chat."""

    async def __init__(self, spec: VllmSpec, data_dir: Path) -> None:  # type: ignore[misc]
        from cluster.engines import vllm  # heavy

        lists = spec.core_lists()
        cores = lists[serve.get_replica_context().rank.local_rank % len(lists)] if lists else None
        await asyncio.to_thread(orphans.end_orphans)
        orphans.mark()
        self.served = await vllm.start(spec, model_folder(spec.source, data_dir), cores)
        self.adapters = self.served.adapters if spec.loras is not None else None
        await self._warm_up(spec.name)
        self.capacity = generating(
            spec,
            # Some are on their way into the engine when a sequence of it ends: its next step is full again.
            spec.max_num_seqs + math.ceil(spec.max_num_seqs / AHEAD),
            kv_tokens=self.served.kv_tokens(),
            reading_tokens=READ_STEPS * (spec.step_tokens or STEP_TOKENS),
        )
        self.watch = QueueMetrics()
        collect_less_often()

    async def _warm_up(self, model: str) -> None:
        call = Generate(
            request_id=f"warm-up-{uuid.uuid4().hex}",
            model=model,
            max_tokens=2,
            deadline=time.time() + WARM_UP_S,
            messages=[Message("user", "Hello")],
        )
        async for _ in deadline.generate(self.served, call):
            pass


class OnnxReplica(EngineEndpoint):
    """An embedding model."""

    def __init__(self, spec: OnnxSpec, data_dir: Path) -> None:
        from cluster.engines.onnx import OnnxEmbedder  # heavy

        folder = model_folder(spec.source, data_dir) or Path(spec.source)
        self.served = OnnxEmbedder(
            folder / "model.onnx",
            folder / "tokenizer.json",
            max_tokens=spec.max_context,
            threads=spec.threads,
        )
        self.batches = True
        self.capacity = Capacity(1, waiting=spec.max_ongoing_requests)
        self.watch = QueueMetrics()
        collect_less_often()


class FakeReplica(EngineEndpoint):
    """The scripted engine."""

    def __init__(self, spec: FakeSpec) -> None:
        self.served = FakeEngine(msgspec.convert(spec.script, FakeScript))
        self.adapters = self.served.adapters
        self.batches = spec.task == "embed"
        self.capacity = generating(spec, spec.max_num_seqs)
        self.watch = QueueMetrics()
        collect_less_often()


def generating(spec: ReplicatedSpec, sequences: int, **bounds: int) -> Capacity:
    """What a replica of a generative model has room for. `sequences`: in its engine at once."""
    return Capacity(sequences, waiting=max(1, spec.max_ongoing_requests - sequences), **bounds)
