"""Results in the store: a tenant's own, bounded, and sealed where its runs are."""

import asyncio

import pytest

from runtime.cache.stored import StoredResults
from runtime.sealing import KEY_BYTES, SealBroken, Sealing
from runtime.store.client import Store
from runtime.store.errors import InvalidName, StoreUnavailable

HOUR_S = 3600.0


async def test_what_is_put_is_there_for_its_tenant_only(store):
    results = StoredResults(store)
    await results.put("acme", "d1", b"one", HOUR_S)
    assert await results.get("acme", "d1") == b"one"
    assert await results.get("acme", "d2") is None
    assert await results.get("other", "d1") is None
    keys = [key.decode() for key in await store.execute("KEYS", "*")]
    assert all(key.startswith("cgh:{acme}:") for key in keys)


async def test_everything_expires(store):
    results = StoredResults(store)
    await results.put("acme", "d1", b"one", HOUR_S)
    left = [await store.execute("PTTL", key) for key in await store.execute("KEYS", "*")]
    assert len(left) == 3
    assert all(0 < each <= HOUR_S * 1000 for each in left)


async def test_what_expires_soonest_makes_room(store):
    results = StoredResults(store, max_results=2)
    await results.put("acme", "soon", b"1", HOUR_S)
    await results.put("acme", "late", b"2", 3 * HOUR_S)
    await results.put("acme", "later", b"3", 4 * HOUR_S)
    assert await results.get("acme", "soon") is None
    assert await results.get("acme", "late") == b"2"
    assert await results.get("acme", "later") == b"3"


async def test_the_bytes_of_a_tenant_are_bounded(store):
    results = StoredResults(store, max_bytes=100)
    for number in range(5):
        await results.put("acme", f"d{number}", b"x" * 40, HOUR_S + number)
        await results.put("other", f"d{number}", b"x" * 40, HOUR_S + number)
    there = [await results.get("acme", f"d{number}") for number in range(5)]
    assert there == [None, None, None, b"x" * 40, b"x" * 40]
    assert await results.get("other", "d4") is not None


async def test_putting_again_counts_once(store):
    results = StoredResults(store, max_bytes=100, max_results=2)
    for _ in range(5):
        await results.put("acme", "d1", b"x" * 60, HOUR_S)
    await results.put("acme", "d2", b"y" * 30, HOUR_S)
    assert await results.get("acme", "d1") == b"x" * 60
    assert await results.get("acme", "d2") == b"y" * 30


async def test_what_has_expired_is_no_longer_counted(store):
    results = StoredResults(store, max_results=2)
    await results.put("acme", "d1", b"1", 0.001)
    while await results.get("acme", "d1") is not None:
        await asyncio.sleep(0.001)
    await results.put("acme", "d2", b"2", HOUR_S)
    assert await store.execute("ZCARD", "cgh:{acme}:cache-due") == 1


async def test_a_look_finds_a_result_or_claims_it(store):
    results = StoredResults(store)
    assert await results.look("acme", "d1", "ours 0", HOUR_S) == (None, "ours 0")
    assert await results.look("acme", "d1", "theirs 0", HOUR_S) == (None, "ours 0")
    assert await results.look("other", "d1", "theirs 0", HOUR_S) == (None, "theirs 0")
    assert await results.put("acme", "d1", b"one", HOUR_S, "ours 0")
    assert await results.look("acme", "d1", "theirs 0", HOUR_S) == (b"one", "")
    assert await results.look("acme", "d1", "theirs 0", HOUR_S, anyway=True) == (b"one", "theirs 0")
    assert await results.get("acme", "d1") == b"one"


async def test_a_claim_expires_unless_it_is_swapped(store):
    results = StoredResults(store)
    await results.look("acme", "d1", "ours 0", 30)
    [key] = await store.execute("KEYS", "*")
    assert key.startswith(b"cgh:{acme}:cache-claim:")
    assert 0 < await store.execute("PTTL", key) <= 30_000
    assert await results.swap("acme", "d1", "ours 0", "ours 0", HOUR_S)
    assert await store.execute("PTTL", key) > 30_000
    assert not await results.swap("acme", "d1", "theirs 0", "", HOUR_S)
    assert await results.swap("acme", "d1", "ours 0", "-", 30)
    assert await store.execute("GET", key) == b"-"
    assert await results.swap("acme", "d1", "-", "", HOUR_S)
    assert await store.execute("DBSIZE") == 0


async def test_a_claim_that_has_become_anothers_keeps_nothing(store):
    results = StoredResults(store)
    await results.look("acme", "d1", "theirs 0", HOUR_S)
    assert not await results.put("acme", "d1", b"late", HOUR_S, "ours 0")
    assert await results.get("acme", "d1") is None
    assert await results.put("acme", "d1", b"theirs", HOUR_S, "theirs 0")
    assert not await results.put("acme", "d1", b"later still", HOUR_S, "ours 0")
    assert await results.get("acme", "d1") == b"theirs"


async def test_a_claim_that_has_lapsed_keeps_what_nobody_else_has_made(store):
    results = StoredResults(store)
    assert await results.put("acme", "d1", b"late", HOUR_S, "ours 0")
    assert await results.get("acme", "d1") == b"late"


async def test_results_of_a_sealed_tenant_can_only_be_read_with_its_key(valkey_store):
    sealing = Sealing([b"k" * KEY_BYTES], ["acme"])
    results = StoredResults(valkey_store, sealing)
    await results.put("acme", "d1", b"a secret", HOUR_S)
    assert await results.get("acme", "d1") == b"a secret"
    assert await StoredResults(valkey_store).get("acme", "d1") is None
    [key] = await valkey_store.execute("KEYS", "*:cache:*")
    assert b"a secret" not in await valkey_store.execute("GET", key)
    await valkey_store.execute("SET", key, b"something else")
    with pytest.raises(SealBroken):
        await results.get("acme", "d1")


async def test_a_tenant_cannot_spell_anothers_key(valkey_store):
    with pytest.raises(InvalidName):
        await StoredResults(valkey_store).get("acme}:x:{b", "d1")


async def test_a_store_that_is_out(tmp_path):
    store = Store.connect(f"unix://{tmp_path}/none.sock", timeout_s=5)
    with pytest.raises(StoreUnavailable):
        await StoredResults(store).get("acme", "d1")
    await store.close()
