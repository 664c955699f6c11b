from __future__ import annotations

import asyncio

import pytest

from cluster.engines.adapters import Adapters
from cluster.errors import EngineFailed


class Engine:
    """Loads for as long as a test wants it to, and tells what it did."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.adapters = Adapters(self.load, self.unload)

    async def load(self, name: str, source: str) -> None:
        await self.go.wait()
        if source == "nowhere":
            raise ValueError("no such folder: /secret/nowhere")
        self.did.append(f"load {name} from {source}")

    async def unload(self, name: str) -> None:
        self.did.append(f"unload {name}")


@pytest.fixture
async def engine() -> Engine:
    engine = Engine()
    await engine.adapters.declare({"legal": "a", "medical": "b"})
    return engine


async def test_nothing_is_loaded_before_it_is_called(engine: Engine) -> None:
    assert engine.did == []
    await engine.adapters.ready("base")
    assert engine.did == []
    await engine.adapters.ready("legal")
    await engine.adapters.ready("legal")
    assert engine.did == ["load legal from a"]
    assert engine.adapters.loaded == ["legal"]


async def test_calls_that_come_together_load_it_once(engine: Engine) -> None:
    engine.go.clear()
    calls = [asyncio.create_task(engine.adapters.ready("legal")) for _ in range(5)]
    await asyncio.sleep(0)
    engine.go.set()
    await asyncio.gather(*calls)
    assert engine.did == ["load legal from a"]


async def test_a_call_that_is_cancelled_leaves_the_next_to_load_it(engine: Engine) -> None:
    engine.go.clear()
    first, second = (asyncio.create_task(engine.adapters.ready("legal")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    engine.go.set()
    await second
    assert engine.did == ["load legal from a"]


async def test_one_that_cannot_be_loaded_is_tried_again_and_says_no_path(engine: Engine) -> None:
    await engine.adapters.declare({"legal": "nowhere"})
    for _ in range(2):
        with pytest.raises(EngineFailed, match="the adapter legal cannot be loaded") as refused:
            await engine.adapters.ready("legal")
        assert "secret" not in refused.value.message
    assert engine.adapters.loaded == []


async def test_another_source_is_loaded_anew_and_what_is_gone_is_forgotten(engine: Engine) -> None:
    await engine.adapters.ready("legal")
    await engine.adapters.ready("medical")
    await engine.adapters.declare({"legal": "c"})
    assert engine.did[2:] == ["unload legal", "unload medical"]
    await engine.adapters.ready("legal")
    await engine.adapters.ready("medical")
    assert engine.did[4:] == ["load legal from c"]


async def test_one_that_is_told_again_stays(engine: Engine) -> None:
    await engine.adapters.ready("legal")
    await engine.adapters.declare({"legal": "a"})
    await engine.adapters.ready("legal")
    assert engine.did == ["load legal from a"]


async def test_tenants_and_sources_have_salts_of_their_own(engine: Engine) -> None:
    salt = engine.adapters.salt
    assert salt("", "base") == ""
    assert salt("acme", "base") == "acme"
    salts = {salt(tenant, model) for tenant in ("", "acme", "other") for model in ("legal", "medical")}
    assert len(salts) == 6
    before = salt("acme", "legal")
    await engine.adapters.declare({"legal": "c"})
    assert salt("acme", "legal") != before
    assert before.isalnum()
