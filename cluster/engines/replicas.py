"""The deployment classes: one replica is one engine in one Ray actor.

They are light to import, so that building an application never imports an engine; each imports its own
where it starts it.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import msgspec
from ray import serve

from cluster.config import FakeSpec, OnnxSpec, VllmSpec
from cluster.engines import deadline
from cluster.engines.fake import FakeEngine, FakeScript
from cluster.engines.serving import EngineEndpoint
from cluster.garbage import collect_less_often
from cluster.messages import Generate, Message
from cluster.models import model_folder

WARM_UP_S = 300.0
"""Bound of the first chat, which compiles kernels on some devices."""


class VllmReplica(EngineEndpoint):
    """A vLLM engine; healthy once it has answered a chat."""

    async def __init__(self, spec: VllmSpec, data_dir: Path) -> None:  # type: ignore[misc]
        from cluster.engines import vllm  # heavy

        lists = spec.core_lists()
        cores = lists[serve.get_replica_context().rank.local_rank % len(lists)] if lists else None
        self.served = await vllm.start(spec, model_folder(spec.source, data_dir), cores)
        await self._warm_up(spec.name)
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
        collect_less_often()


class FakeReplica(EngineEndpoint):
    """The scripted engine."""

    def __init__(self, spec: FakeSpec) -> None:
        self.served = FakeEngine(msgspec.convert(spec.script, FakeScript))
        collect_less_often()
