"""Everything that the store keeps of a sealed run is encrypted, and opens in its own place only."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from cluster.messages import Usage
from runtime.approvals.book import ApprovalBook
from runtime.approvals.model import Asked, Decision
from runtime.durability.places import places
from runtime.durability.stored import StoredJournals
from runtime.errors import UnknownRun
from runtime.events import NodeDelta, NodeFinished, RunFinished
from runtime.records.model import Kept, RunRecord
from runtime.records.store import RunStore
from runtime.sealing import DataKeyError, Sealing
from runtime.store.client import Store
from serve_apps.data_keys import VARIABLE, load_sealing
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.errors import Conflict
from serve_apps.gateway.idempotency import AnswerStore, Claim, KeptAnswer, fingerprint_of
from serve_apps.settings import Settings
from tests.runtime.durability.journals import PLAN, STARTED, checkpoint, followed, request

CANARY = "canary-5e8d"
SEALING = Sealing([bytes(range(32))], ["acme"])
KEY = Caller("acme", "k1")
KEYS = places("acme", "run-1")


def settings_of(tmp_path: Path, *sealed: str) -> Settings:
    fake = {"name": "m", "engine": "fake"}
    return Settings.model_validate({"data_dir": tmp_path, "models": [fake], "runs": {"sealed": list(sealed)}})


async def keep_everything(store: Store, sealing: Sealing, tenant: str = "acme") -> None:
    """A run that says the canary wherever it can."""
    journals = StoredJournals(store, "runner-1", sealing=sealing)
    asked = msgspec.structs.replace(request(tenant=tenant), inputs={"question": CANARY})
    journal = await journals.begin(asked, msgspec.structs.replace(PLAN, description=CANARY))
    large = checkpoint("large", CANARY * 10_000)
    await journal.append([STARTED, NodeDelta("ask", CANARY)], [checkpoint("ask", CANARY), large])
    done = NodeFinished("ask", 0.1, Usage(1, 1), {"text": CANARY})
    await journal.append([done, RunFinished({"answer": CANARY}, Usage(1, 1), 0.2)], [])

    kept = Kept({"question": CANARY}, {})
    record = RunRecord("run-1", tenant, "g", "1", "h", "succeeded", time.time(), time.time(), inputs=kept)
    await RunStore(store, sealing=sealing).write([record])

    book, told = ApprovalBook(store, sealing=sealing), asyncio.Event()
    question = Asked("review", CANARY, CANARY, 0.0, time.time() + 30)
    waiting = asyncio.create_task(book.wait(tenant, "run-1", question, told.set))
    await told.wait()
    assert await book.decide(tenant, "run-1", "review", Decision(True, CANARY)) == "taken"
    assert (await waiting).comment == CANARY

    claim = await AnswerStore(store, sealing=sealing).claim(KEY, b"one", fingerprint_of("/", False, b"{}"))
    assert isinstance(claim, Claim)
    await claim.keep(KeptAnswer(200, [], CANARY.encode()))


async def dump(store: Store) -> dict[bytes, Any]:
    """Everything in the store, by key."""
    reads = {
        b"string": lambda key: ("GET", key),
        b"hash": lambda key: ("HGETALL", key),
        b"zset": lambda key: ("ZRANGE", key, 0, -1),
        b"stream": lambda key: ("XRANGE", key, "-", "+"),
    }
    found = {}
    for key in await store.execute("KEYS", "*"):
        found[key] = await store.execute(*reads[await store.execute("TYPE", key)](key))
    return found


async def test_no_plain_word_of_a_sealed_run_is_in_the_store(valkey_store: Store, valkey_url: str) -> None:
    log = Path(urlsplit(valkey_url).path).parent / "appendonlydir"

    def written() -> bytes:
        return b"".join(file.read_bytes() for file in log.iterdir())

    before = written().count(CANARY.encode())
    await keep_everything(valkey_store, SEALING)
    everything = await dump(valkey_store)
    assert len(everything) > 10
    assert CANARY not in repr(everything)
    assert written().count(CANARY.encode()) == before
    await valkey_store.execute("FLUSHALL")
    await keep_everything(valkey_store, Sealing())
    everything = await dump(valkey_store)
    assert sum(CANARY in repr(value) for value in everything.values()) >= 7
    assert written().count(CANARY.encode()) > before


async def test_what_is_sealed_comes_back(valkey_store: Store) -> None:
    await keep_everything(valkey_store, SEALING)
    journals = StoredJournals(valkey_store, "runner-2", sealing=SEALING)
    kept = await journals.read("acme", "run-1")
    assert kept.request.inputs == {"question": CANARY}
    assert kept.plan.description == CANARY
    assert kept.done["large"].outputs == {"text": CANARY * 10_000}
    assert (await followed(journals))[-1].event.outputs == {"answer": CANARY}
    runs = RunStore(valkey_store, sealing=SEALING)
    record = await runs.load("acme", "run-1", time.time())
    assert record is not None
    assert record.inputs.values == {"question": CANARY}
    page = await runs.newest("acme", 9, time.time(), wanted=lambda _: True)
    assert [run.run_id for run in page.runs] == ["run-1"]
    (approval,) = await ApprovalBook(valkey_store, sealing=SEALING).of_run("acme", "run-1")
    assert approval.decision == Decision(True, CANARY)
    answers = AnswerStore(valkey_store, sealing=SEALING)
    answer = await answers.claim(KEY, b"one", fingerprint_of("/", False, b"{}"))
    assert answer == KeptAnswer(200, [], CANARY.encode())


async def _rename(store: Store, pattern: str, old: str, new: str) -> None:
    for key in await store.execute("KEYS", pattern):
        await store.execute("RENAME", key, key.replace(old.encode(), new.encode()))


async def assert_unreadable(store: Store, run_id: str = "run-1", tenant: str = "acme") -> None:
    journals = StoredJournals(store, "runner-2", sealing=Sealing([bytes(range(32))], ["acme", "globex"]))
    with pytest.raises(UnknownRun, match="cannot be read"):
        await journals.read(tenant, run_id)


async def test_a_run_does_not_open_as_another_one_or_for_another_tenant(valkey_store: Store) -> None:
    await keep_everything(valkey_store, SEALING)
    await _rename(valkey_store, "cgh:{acme}:journal:run-1*", "run-1", "run-2")
    await assert_unreadable(valkey_store, "run-2")
    await _rename(valkey_store, "cgh:{acme}*", "acme", "globex")
    await assert_unreadable(valkey_store, "run-2", "globex")
    runs = RunStore(valkey_store, sealing=Sealing([bytes(range(32))], ["globex"]))
    assert await runs.load("globex", "run-1", time.time()) is None
    assert (await runs.newest("globex", 9, time.time(), wanted=lambda _: True)).runs == []
    book = ApprovalBook(valkey_store, sealing=Sealing([bytes(range(32))], ["globex"]))
    assert await book.of_run("globex", "run-1") == []
    assert await book.decide("globex", "run-1", "review", Decision(True)) == "unknown"


async def test_checkpoints_do_not_open_in_each_others_place(valkey_store: Store) -> None:
    await keep_everything(valkey_store, SEALING)
    ask, large = await valkey_store.execute("HMGET", KEYS.done, "ask", "large")
    await valkey_store.execute("HSET", KEYS.done, "ask", large, "large", ask)
    await assert_unreadable(valkey_store)


async def test_plain_and_changed_values_are_refused(valkey_store: Store) -> None:
    await keep_everything(valkey_store, SEALING)
    sealed = await valkey_store.execute("HGET", KEYS.done, "ask")
    for other in (msgspec.msgpack.encode(checkpoint("ask", "yours")), sealed[:-1] + b"\x00\x00", b""):
        await valkey_store.execute("HSET", KEYS.done, "ask", other)
        await assert_unreadable(valkey_store)


async def test_events_do_not_open_under_another_number(valkey_store: Store) -> None:
    await keep_everything(valkey_store, SEALING)
    journals = StoredJournals(valkey_store, "runner-2", sealing=SEALING)
    (_, fields), *_ = await valkey_store.execute("XRANGE", KEYS.events, "-", "+")
    await valkey_store.execute("DEL", KEYS.events)
    await valkey_store.execute("XADD", KEYS.events, "3-0", *fields)
    with pytest.raises(UnknownRun, match="cannot be read"):
        await followed(journals)


async def test_an_answer_of_another_key_does_not_open(valkey_store: Store) -> None:
    await keep_everything(valkey_store, SEALING)
    (name,) = await valkey_store.execute("KEYS", "cgh:{acme}:once:*")
    await valkey_store.execute("HSET", name, "answer", b"\xc1\x01" + bytes(60))
    with pytest.raises(Conflict) as caught:
        await AnswerStore(valkey_store, sealing=SEALING).claim(KEY, b"one", fingerprint_of("/", False, b"{}"))
    assert caught.value.code == "idempotent_answer_not_kept"


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    key = bytes(range(32))
    environ = {VARIABLE: base64.b64encode(key).decode()}
    sealed = load_sealing(settings_of(tmp_path, "acme"), environ).of("acme").close(b"x", "key")
    assert Sealing([key], ["acme"]).of("acme").open(sealed, "key") == b"x"
    assert not (tmp_path / "secrets").exists()

    sealed = load_sealing(settings_of(tmp_path, "*"), {}).of("acme").close(b"x", "key")
    assert (tmp_path / "secrets" / "data_key").stat().st_mode & 0o777 == 0o600
    assert load_sealing(settings_of(tmp_path, "acme"), {}).of("acme").open(sealed, "key") == b"x"
    later = load_sealing(settings_of(tmp_path), {}).of("acme")  # it is sealed no more, and still can be read
    assert later.open(sealed, "key") == later.close(b"x", "key") == b"x"


def test_who_seals_nothing_needs_no_key(tmp_path: Path) -> None:
    assert load_sealing(settings_of(tmp_path), {}).of("acme").close(b"x", "key") == b"x"
    assert not (tmp_path / "secrets").exists()
    with pytest.raises(DataKeyError, match="base64"):
        load_sealing(settings_of(tmp_path), {VARIABLE: "?"})


def test_a_name_that_no_tenant_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"runs\.sealed"):
        settings_of(tmp_path, "ac*")
