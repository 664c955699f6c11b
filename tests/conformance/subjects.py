"""The pools that the contract holds for, each as a subject: a pool and what may be expected of it.

To add one, write a context manager that yields its `Subject` and name it in `CASES`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from ray import serve

from cluster.anthropic_wire import REFUSED
from cluster.config import AnthropicSpec, FakeSpec, OnnxSpec, OpenAISpec, VllmSpec
from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter, Rule
from cluster.engines.replicas import FakeReplica, OnnxReplica
from cluster.interface import ModelInfo, Pool
from cluster.messages import EngineStatus, decode_status
from cluster.models import prepare
from cluster.pools.deploy import bind, model_info, token_counter
from cluster.pools.handle import HandlePool
from cluster.pools.local import LocalPool
from cluster.providers.anthropic import AnthropicPool
from cluster.providers.openai import OpenAIPool
from runtime.store.client import Store
from runtime.store.embedded import EmbeddedValkey
from tests.cluster.pools.handles import handle_to
from tests.conformance.gateway import CHAT, gateway_over
from tests.conformance.upstream import EMBED, GENERATE, KEY, MAX_CONTEXT, Upstream
from tests.local_ray import local_serve
from tests.serve_apps.conftest import served

PREPARED = Path(__file__).parents[2] / ".data"
"""Where the repository keeps its bundled models: made ready once, not once for each run of the tests."""

AT_LENGTH = "Tell me all of it."
SCRIPT = FakeScript(token_s=0.002, rules=[Rule(contains=AT_LENGTH, token_s=0.05)])
"""An answer at length takes so long that it can be left, cut short and overtaken on any machine."""


@dataclass(frozen=True)
class Subject:
    """A pool at work."""

    pool: Pool
    counts_exactly: bool = False
    """Whether `count_tokens` is what the engine charges, or only an upper bound of it."""
    refuses_long: bool = False
    """Whether the engine itself refuses what its context cannot hold."""
    unknown: frozenset[str] = frozenset()
    """Fields of `Sampling` that it refuses; `prompt` where it takes chats only."""
    status: Callable[[], Awaitable[EngineStatus]] | None = None
    """The engine's own status, where it can be seen."""


@dataclass(frozen=True)
class Case:
    """How to start a subject, once for all tests, and which of them concern it."""

    start: Callable[[Path], AbstractAsyncContextManager[Subject]]
    """Given a folder for data."""
    generates: bool = False
    embeds: bool = False
    marks: tuple[pytest.MarkDecorator, ...] = ()
    """Where not every run of the tests can have it."""


@asynccontextmanager
async def fake(_: Path) -> AsyncIterator[Subject]:
    """The scripted engine in the caller's process."""
    engine = FakeEngine(SCRIPT)
    info = ModelInfo("fake", "generate", MAX_CONTEXT, 16)
    pool = LocalPool(info, engine, FakeTokenCounter())
    yield Subject(pool, counts_exactly=True, status=engine.status)


@asynccontextmanager
async def fake_replica(data_dir: Path) -> AsyncIterator[Subject]:
    """The scripted engine as a replica behind a handle."""
    spec = FakeSpec(name="fake", engine="fake", script=msgspec.to_builtins(SCRIPT))
    replica = FakeReplica(spec)
    pool = HandlePool(model_info(spec), handle_to(replica).as_handle(), token_counter(spec, data_dir))

    async def status() -> EngineStatus:
        return decode_status(await replica.status())

    yield Subject(pool, counts_exactly=True, status=status)


@asynccontextmanager
async def onnx_replica(data_dir: Path) -> AsyncIterator[Subject]:
    """The bundled MiniLM as a replica behind a handle."""
    prepare("bundled/minilm", data_dir)
    spec = OnnxSpec(name="minilm", engine="onnx", source="bundled/minilm")
    replica = OnnxReplica(spec, data_dir)
    pool = HandlePool(model_info(spec), handle_to(replica).as_handle(), token_counter(spec, data_dir))
    yield Subject(pool, counts_exactly=True, refuses_long=True)


@asynccontextmanager
async def openai_chat(data_dir: Path) -> AsyncIterator[Subject]:
    """A generative model of a remote provider."""
    async with Upstream(FakeEngine(SCRIPT)).serve() as upstream:
        spec = OpenAISpec(
            name="remote", engine="openai", base_url=upstream.url, model=GENERATE, api_key_env="UPSTREAM_KEY"
        )
        pool = OpenAIPool(spec, model_info(spec), token_counter(spec, data_dir), {"UPSTREAM_KEY": KEY})
        yield Subject(pool, refuses_long=True, status=upstream.engine.status)
        await pool.close()


@asynccontextmanager
async def openai_embeddings(data_dir: Path) -> AsyncIterator[Subject]:
    """An embedding model of a remote provider."""
    async with Upstream(FakeEngine(SCRIPT)).serve() as upstream:
        spec = OpenAISpec(
            name="remote",
            engine="openai",
            base_url=upstream.url,
            model=EMBED,
            task="embed",
            api_key_env="UPSTREAM_KEY",
        )
        pool = OpenAIPool(spec, model_info(spec), token_counter(spec, data_dir), {"UPSTREAM_KEY": KEY})
        yield Subject(pool, refuses_long=True)
        await pool.close()


@asynccontextmanager
async def anthropic_messages(data_dir: Path) -> AsyncIterator[Subject]:
    """A model behind Anthropic's API, which is spoken by a gateway of ours over the scripted engine."""
    valkey = EmbeddedValkey(data_dir / "valkey")
    store = Store.connect(valkey.start_or_adopt(), timeout_s=5)
    # Without `ignore_eos` an answer is as long as this, where `max_tokens` does not cut it.
    engine = FakeEngine(msgspec.structs.replace(SCRIPT, output_tokens=MAX_CONTEXT))
    try:
        app, token = await gateway_over(engine, store, MAX_CONTEXT)
        async with served(app) as url:
            spec = AnthropicSpec(name=CHAT, engine="anthropic", base_url=f"{url}/v1", api_key_env="K")
            pool = AnthropicPool(spec, model_info(spec), token_counter(spec, data_dir), {"K": token})
            unknown = frozenset({*REFUSED, "prompt"})
            yield Subject(pool, refuses_long=True, unknown=unknown, status=engine.status)
            await pool.close()
    finally:
        await store.close()
        valkey.stop()


@asynccontextmanager
async def vllm_replica(_: Path) -> AsyncIterator[Subject]:
    """The bundled SmolLM2 on the real engine, in a Ray instance of its own."""
    await asyncio.to_thread(prepare, "bundled/smollm2", PREPARED)
    spec = VllmSpec(name="smollm2", engine="vllm", source="bundled/smollm2", default_max_tokens=64)
    async with local_serve():
        handle = await asyncio.to_thread(serve.run, bind(spec, PREPARED), route_prefix=None)
        pool = HandlePool(model_info(spec), handle, token_counter(spec, PREPARED))
        state = handle.options(method_name="status")

        async def status() -> EngineStatus:
            return decode_status(await state.remote())

        yield Subject(pool, counts_exactly=True, refuses_long=True, status=status)


CASES = {
    "fake": Case(fake, generates=True, embeds=True),
    "fake-replica": Case(fake_replica, generates=True, embeds=True),
    "onnx-replica": Case(onnx_replica, embeds=True),
    "openai-chat": Case(openai_chat, generates=True),
    "openai-embeddings": Case(openai_embeddings, embeds=True),
    "anthropic-messages": Case(anthropic_messages, generates=True),
    "vllm-replica": Case(vllm_replica, generates=True, marks=(pytest.mark.engine, pytest.mark.ray)),
}
