"""API keys on both kinds of store."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from runtime.store.client import Store
from runtime.store.errors import InvalidName, StoreUnavailable
from serve_apps.gateway import keys as keys_module
from serve_apps.gateway.keys import (
    ExpiredKey,
    InvalidKey,
    KeyRecord,
    KeyRejected,
    KeyStore,
    PepperError,
    RevokedKey,
    load_or_create_pepper,
)
from serve_apps.gateway.limits import Allowance, Limits

PEPPER = bytes(range(32))
NOW = 1_900_000_000.0


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(store: Store, clock: Clock) -> KeyStore:
    return KeyStore(store, PEPPER, clock=clock, monotonic=clock)


async def commands_served(store: Store) -> int:
    stats = (await store.execute("INFO", "stats")).decode()
    return int(next(line for line in stats.splitlines() if line.startswith("total_commands")).split(":")[1])


async def test_a_new_key_authenticates_as_its_record(keys: KeyStore) -> None:
    allowance = Allowance(Limits(requests_per_minute=60, tokens_per_minute=1000))
    token, record = await keys.create(
        "acme", "ci", allowance=allowance, expires=NOW + 60, models=["a", "graph/b"]
    )
    assert await keys.authenticate(token) == record
    assert record == KeyRecord(
        record.key_id, "acme", "ci", NOW, NOW + 60, allowance=allowance, models=["a", "graph/b"]
    )
    assert await keys.get(record.key_id) == record
    assert token.startswith(f"cgh_{record.key_id}_")
    assert len(token.split("_", 2)[2]) >= 43


async def test_the_store_never_holds_the_secret_or_the_pepper(store: Store, keys: KeyStore) -> None:
    token, _ = await keys.create("acme", "ci")
    secret = token.split("_", 2)[2].encode()
    for key in await store.execute("KEYS", "*"):
        dump = await store.execute("DUMP", key)
        assert secret not in dump
        assert PEPPER not in dump


@pytest.mark.parametrize(
    "mangle",
    [
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token + "A",
        lambda token: token.upper(),
        lambda token: token.replace("cgh_", "sk-"),
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token.rsplit("_", 1)[0] + "_",
        lambda _: "cgh_" + "0" * 32 + "_" + "A" * 43,
        lambda _: "cgh_*_" + "A" * 43,
        lambda _: "",
        lambda _: "x" * 100_000,
        lambda token: token[:20] + "é" + token[21:],
        lambda token: "\ud800" + token,
    ],
)
async def test_what_is_not_a_key_is_refused_without_quoting_it(
    keys: KeyStore, mangle: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token, _ = await keys.create("acme", "ci")
    bad = mangle(token)  # type: ignore[operator]
    with pytest.raises(InvalidKey) as caught:
        await keys.authenticate(bad)
    secret = token.split("_", 2)[2]
    assert secret[:-1] not in repr(caught.value) + str(caught.value) + caplog.text


async def test_invented_keys_never_reach_the_store(store: Store, keys: KeyStore) -> None:
    before = await commands_served(store)
    for _ in range(1_000):
        with pytest.raises(InvalidKey):
            await keys.authenticate(f"cgh_{secrets.token_hex(16)}_{secrets.token_urlsafe(32)}")
    assert await commands_served(store) - before == 1
    assert len(keys._cache) == 0


async def test_another_pepper_knows_no_key(store: Store, keys: KeyStore) -> None:
    token, _ = await keys.create("acme", "ci")
    with pytest.raises(InvalidKey):
        await KeyStore(store, bytes(32)).authenticate(token)


async def test_a_key_expires_by_the_clock(store: Store, keys: KeyStore, clock: Clock) -> None:
    token, record = await keys.create("acme", "ci", expires=NOW + 10)
    clock.now += 9.9
    assert await keys.authenticate(token) == record
    clock.now += 0.1
    with pytest.raises(ExpiredKey):
        await keys.authenticate(token)
    with pytest.raises(InvalidKey):
        await keys.authenticate(token[:-4] + "AAAA")
    assert await store.execute("PTTL", f"cgh:apikey:{record.key_id}") > 0


async def test_a_revocation_is_seen_here_at_once_and_elsewhere_within_the_cache_time(
    store: Store, keys: KeyStore, clock: Clock
) -> None:
    elsewhere = KeyStore(store, PEPPER, clock=clock, monotonic=clock)
    token, record = await keys.create("acme", "ci")
    await keys.authenticate(token)
    await elsewhere.authenticate(token)
    assert await keys.revoke(record.key_id)
    with pytest.raises(RevokedKey):
        await keys.authenticate(token)
    clock.now += 0.99
    assert (await elsewhere.authenticate(token)).key_id == record.key_id
    clock.now += 0.02
    with pytest.raises(RevokedKey):
        await elsewhere.authenticate(token)
    found = await keys.get(record.key_id)
    assert found == msgspec.structs.replace(record, revoked=True)
    assert 0 < await store.execute("TTL", f"cgh:apikey:{record.key_id}") <= 90 * 24 * 3600
    assert not await keys.revoke("0" * 32)


async def test_a_revocation_during_a_read_is_not_hidden_by_it(
    store: Store, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, record = await keys.create("acme", "ci")
    has_read, may_return = asyncio.Event(), asyncio.Event()
    execute = store.execute

    async def slow(*command: object) -> object:
        reply = await execute(*command)  # type: ignore[arg-type]
        has_read.set()
        await may_return.wait()
        return reply

    with monkeypatch.context() as patch:
        patch.setattr(store, "execute", slow)
        reading = asyncio.ensure_future(keys.authenticate(token))
        await has_read.wait()
    await keys.revoke(record.key_id)
    may_return.set()
    await reading
    with pytest.raises(RevokedKey):
        await keys.authenticate(token)


async def test_within_the_cache_time_the_store_is_asked_once(
    store: Store, keys: KeyStore, clock: Clock
) -> None:
    token, _ = await keys.create("acme", "ci")
    before = await commands_served(store)
    await asyncio.gather(*(keys.authenticate(token) for _ in range(100)))
    await keys.authenticate(token)
    with pytest.raises(InvalidKey):
        await keys.authenticate(token[:-4] + "AAAA")
    assert await commands_served(store) - before == 2
    clock.now += 1.01
    await keys.authenticate(token)
    assert await commands_served(store) - before == 4


async def test_absence_is_cached_too(store: Store, keys: KeyStore, clock: Clock) -> None:
    token, record = await keys.create("acme", "ci")
    await store.execute("DEL", f"cgh:apikey:{record.key_id}")
    before = await commands_served(store)
    for _ in range(10):
        with pytest.raises(InvalidKey):
            await keys.authenticate(token)
    assert await commands_served(store) - before == 2


async def test_the_cache_is_bounded(store: Store, keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "CACHE_SIZE", 5)
    for number in range(12):
        token, _ = await keys.create("acme", str(number))
        await keys.authenticate(token)
    assert len(keys._cache) == 5
    assert keys._reads == {}


async def test_a_caller_that_leaves_takes_nobody_along(keys: KeyStore) -> None:
    token, record = await keys.create("acme", "ci")
    leaving, staying = (asyncio.ensure_future(keys.authenticate(token)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == record
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_nobody_is_let_in_while_the_store_is_out(mute_url: str, keys: KeyStore) -> None:
    token, _ = await keys.create("acme", "ci")
    out = Store.connect(mute_url, timeout_s=0.05)
    cut_off = KeyStore(out, PEPPER)
    with pytest.raises(StoreUnavailable):
        await cut_off.authenticate(token)
    assert cut_off._cache == {}
    await out.close()


async def test_a_tenant_lists_its_own_keys_by_age(
    store: Store, keys: KeyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_PAGE", 3)
    made = []
    for number in range(8):
        clock.now += 1
        made.append((await keys.create("acme", str(number)))[1])
    await keys.create("other", "x")
    await keys.revoke(made[1].key_id)
    for forgotten in (0, 4, 7):
        await store.execute("DEL", f"cgh:apikey:{made[forgotten].key_id}")
    clock.now += 100
    listed = [record async for record in keys.list("acme")]
    assert [record.name for record in listed] == ["1", "2", "3", "5", "6"]
    assert [record.revoked for record in listed] == [True, False, False, False, False]
    assert await store.execute("ZCARD", "cgh:{acme}:apikeys") == 5
    assert [record async for record in keys.list("nobody")] == []


async def test_bad_names_are_refused(keys: KeyStore) -> None:
    with pytest.raises(InvalidName, match="tenant"):
        await keys.create("a:b", "ci")
    with pytest.raises(InvalidName, match="key id"):
        await keys.revoke("x}:y")


def test_the_rejections_share_a_base_and_say_nothing_of_the_key() -> None:
    for kind in (InvalidKey, ExpiredKey, RevokedKey):
        assert issubclass(kind, KeyRejected)
        assert "cgh" not in str(kind())


async def test_a_short_pepper_is_refused(store: Store) -> None:
    with pytest.raises(PepperError, match="32 bytes"):
        KeyStore(store, b"short")


def test_a_pepper_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pepper"
    pepper = load_or_create_pepper(path)
    assert len(pepper) == 32
    assert load_or_create_pepper(path) == pepper
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_race_for_the_pepper_get_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        peppers = pool.map(load_or_create_pepper, [tmp_path / "pepper"] * 8, chunksize=1)
        pool.close()
        pool.join()
    assert len(set(peppers)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["pepper"]


def test_a_pepper_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    load_or_create_pepper(path)
    path.chmod(0o644)
    with pytest.raises(PepperError, match="chmod 600"):
        load_or_create_pepper(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(PepperError, match="5 bytes"):
        load_or_create_pepper(path)
