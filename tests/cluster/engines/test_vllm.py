"""What the spec asks for beyond a plain model works on the real engine: adapters, guesses ahead, and guided
decoding, on one replica that has them all."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from ray import serve

from cluster.config import LoraSpec, VllmSpec
from cluster.engines.replicas import READ_STEPS
from cluster.errors import EngineFailed
from cluster.messages import AdmissionState, Delta, EngineStatus, Message, Sampling, Usage, decode_status
from cluster.models import prepare
from cluster.pools.deploy import bind, model_info, token_counter
from cluster.pools.handle import HandlePool
from cluster.vllm_options import LoraSlots, NgramSpeculation
from tests.cluster.calls import events_of, generate, text_of, usage_of
from tests.cluster.engines.lora import write_adapter
from tests.local_ray import local_serve

pytestmark = [pytest.mark.engine, pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

PREPARED = Path(__file__).parents[3] / ".data"
PATIENCE_S = 900.0
"""Adapters are slow on a CPU, and slower on one that is busy."""
QUESTION = "What is the capital of France?"
REPEATED = "Say this again: one two three four five six seven eight nine ten. " * 4
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Lyon", "Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}


@dataclass
class Engine:
    """One replica, and how to reach it."""

    spec: VllmSpec
    handle: serve.handle.DeploymentHandle

    def pool(self, name: str) -> HandlePool:
        spec = self.spec if name == self.spec.name else lora(name, "")
        return HandlePool(model_info(spec, self.spec), self.handle, token_counter(self.spec, PREPARED))

    async def ask(self, model: str, text: str = QUESTION, **fields: object) -> list[Delta | Usage]:
        sampling = Sampling(temperature=0.0, **fields.pop("sampling", {}))
        asked = {"max_tokens": 12, "deadline": time.time() + PATIENCE_S} | fields
        call = generate(model=model, messages=[Message("user", text)], sampling=sampling, **asked)
        pool = self.pool(model)
        return await events_of(pool.generate(replace(call, prompt_tokens=pool.count_tokens(call))))

    async def status(self) -> EngineStatus:
        return decode_status(await self.handle.options(method_name="status").remote())

    async def queue(self) -> AdmissionState:
        state = (await self.status()).admission
        assert state is not None
        return state

    async def deploy(self, adapters: Sequence[LoraSpec]) -> None:
        application = bind(self.spec, PREPARED, adapters=adapters)
        self.handle = await asyncio.to_thread(serve.run, application, route_prefix=None)


def lora(name: str, source: object) -> LoraSpec:
    return LoraSpec(name=name, engine="lora", base="smollm2", source=str(source))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("adapters")
    write_adapter(made / "nothing", scale=0.0)
    write_adapter(made / "other", scale=0.05)
    (made / "broken").mkdir()
    (made / "broken" / "adapter_config.json").write_text(json.dumps({"r": 8}))
    return made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(folder: Path) -> AsyncIterator[Engine]:
    await asyncio.to_thread(prepare, "bundled/smollm2", PREPARED)
    spec = VllmSpec(
        name="smollm2",
        engine="vllm",
        source="bundled/smollm2",
        default_max_tokens=64,
        max_num_seqs=4,
        max_num_batched_tokens=64,
        loras=LoraSlots(max_active=2, max_rank=8, max_cached=2),
        speculative=NgramSpeculation(method="ngram", tokens=3),
        guided_decoding="xgrammar",
    )
    async with local_serve():
        engine = Engine(spec, handle=None)
        await engine.deploy([lora(name, folder / name) for name in ("nothing", "other", "broken")])
        yield engine


@pytest.mark.timeout(PATIENCE_S)
async def test_tenants_share_the_engine_by_tokens(engine: Engine) -> None:
    """No more calls than slots, no more of their prompts than are soon read, and all that is made counted:
    of replies in one piece too, of which only the engine knows how far they are."""
    order: list[str] = []

    async def ask(tenant: str, number: int, max_tokens: int) -> Usage:
        text = f"{number} {tenant}: " + "tell me of a place. " * 8
        events = await engine.ask(
            "smollm2",
            text,
            request_id=f"{tenant}-{number}",
            tenant=tenant,
            max_tokens=max_tokens,
            sampling={"ignore_eos": True},
        )
        order.append(tenant)
        return usage_of(events)

    before = await engine.status()
    assert before.admission is not None
    tasks = [asyncio.create_task(ask("flood", number, 12)) for number in range(10)]
    admitted = waiting = 0
    while admitted + waiting < 10:
        await asyncio.sleep(0.02)
        state = await engine.queue()
        admitted, waiting = state.admitted - before.admission.admitted, state.waiting
    tasks += [asyncio.create_task(ask("light", number, 6)) for number in range(3)]
    seen = []
    while not all(task.done() for task in tasks):
        seen.append(await engine.queue())
        await asyncio.sleep(0.02)
    usages, after = await asyncio.gather(*tasks), await engine.status()
    made = [usage.completion_tokens for usage in usages]
    assert made == [12] * 10 + [6] * 3
    assert after.completion_tokens - before.completion_tokens == sum(made)
    assert after.prompt_tokens - before.prompt_tokens == sum(usage.prompt_tokens for usage in usages)
    slots = engine.spec.max_num_seqs + 1  # one is on its way in when a sequence ends
    longest = max(usage.prompt_tokens for usage in usages)
    assert 2 * longest > READ_STEPS * 64 > longest  # the next goes in when this one was seen to be read
    assert 1 < max(state.sequences for state in seen) <= slots
    assert max(state.reading_tokens for state in seen) <= READ_STEPS * 64
    end = await engine.queue()
    assert (end.sequences, end.kv_tokens, end.reading_tokens, end.waiting) == (0, 0, 0, 0)
    # Of the flood those go first that were in already, and no more than the others have calls of less tokens.
    last = max(index for index, tenant in enumerate(order) if tenant == "light")
    assert order[:last].count("flood") <= admitted + 4


async def test_adapters_are_loaded_when_they_are_called(engine: Engine) -> None:
    assert (await engine.status()).adapters == []
    plain = text_of(await engine.ask("smollm2"))
    assert (await engine.status()).adapters == []
    assert text_of(await engine.ask("nothing")) == plain
    assert text_of(await engine.ask("other")) != plain
    assert (await engine.status()).adapters == ["nothing", "other"]


async def test_adapters_share_a_batch(engine: Engine) -> None:
    alone = {name: text_of(await engine.ask(name)) for name in ("smollm2", "nothing", "other")}
    together = await asyncio.gather(*(engine.ask(name) for name in alone))
    assert [text_of(events) for events in together] == list(alone.values())


async def test_adapters_have_prefixes_of_their_own(engine: Engine) -> None:
    long = "A sentence that is the same for all of them. " * 16
    await engine.ask("smollm2", long)
    assert usage_of(await engine.ask("smollm2", long)).cached_tokens > 0
    assert usage_of(await engine.ask("other", long)).cached_tokens == 0
    assert usage_of(await engine.ask("other", long)).cached_tokens > 0


async def test_one_that_cannot_be_loaded_fails_its_calls_alone(engine: Engine) -> None:
    with pytest.raises(EngineFailed, match="the adapter broken cannot be loaded"):
        await engine.ask("broken")
    assert text_of(await engine.ask("smollm2"))


async def test_answers_are_held_to_a_schema_while_tokens_are_guessed(engine: Engine) -> None:
    held = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    for model in ("smollm2", "nothing"):
        events = await engine.ask(model, sampling={"response_format": held}, max_tokens=32)
        assert Draft202012Validator(SCHEMA).is_valid(json.loads(text_of(events)))


async def test_guesses_save_steps(engine: Engine) -> None:
    events = await engine.ask("smollm2", REPEATED, max_tokens=64, sampling={"ignore_eos": True}, stream=True)
    assert usage_of(events).completion_tokens == 64
    assert len([event for event in events if isinstance(event, Delta)]) < 64


async def test_another_source_is_loaded_anew_in_the_same_replica(engine: Engine, folder: Path) -> None:
    before, plain = await engine.status(), text_of(await engine.ask("smollm2"))
    assert text_of(await engine.ask("other")) != plain
    await engine.deploy([lora("other", folder / "nothing")])
    assert text_of(await engine.ask("other")) == plain
    after = await engine.status()
    assert after.adapters == ["other"]
    assert after.completed > before.completed > 0
