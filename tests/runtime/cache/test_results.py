"""Results in this process and in the store; a store that is out is a miss."""

import time

from runtime.cache.results import MAX_RESULT_BYTES, NOBODY, Look, Result, Results
from runtime.cache.stored import StoredResults
from runtime.sealing import KEY_BYTES, Sealing
from runtime.store.client import Store

HOUR_S = 3600.0


def result(text: str = "a", made: float = 1000.0) -> Result:
    return Result({"text": text}, made, 7)


async def test_without_a_store_they_are_this_processs_own():
    results = Results()
    results.put("", "d", result(), HOUR_S)
    assert await results.get("", "d", 0) == result()
    assert await results.get("other", "d", 0) is None


async def test_what_is_too_old_is_not_given():
    results = Results()
    results.put("acme", "d", result(made=1000.0), HOUR_S)
    assert await results.get("acme", "d", 1000.0) is not None
    assert await results.get("acme", "d", 1000.5) is None


async def test_another_process_finds_it_in_the_store(store):
    ours, theirs = Results(StoredResults(store)), Results(StoredResults(store))
    ours.put("acme", "d", result(), HOUR_S)
    await ours.flush()
    assert await theirs.get("acme", "d", 0) == result()
    assert await theirs.get("other", "d", 0) is None


async def test_a_newer_one_in_the_store_counts(store):
    ours, theirs = Results(StoredResults(store)), Results(StoredResults(store))
    ours.put("acme", "d", result("old", 1000.0), HOUR_S)
    await ours.flush()
    theirs.put("acme", "d", result("new", 2000.0), HOUR_S)
    await theirs.flush()
    assert await ours.get("acme", "d", 1500.0) == result("new", 2000.0)


async def test_what_was_used_once_is_not_asked_for_again(valkey_store):
    results = Results(StoredResults(valkey_store))
    results.put("acme", "d", result(), HOUR_S)
    await results.flush()
    await valkey_store.execute("FLUSHALL")
    assert await results.get("acme", "d", 0) == result()


async def test_what_is_too_large_or_no_value_is_not_kept(valkey_store):
    results = Results(StoredResults(valkey_store))
    results.put("acme", "large", result("x" * MAX_RESULT_BYTES), HOUR_S)
    results.put("acme", "odd", Result({"x": object()}, 1.0, 0), HOUR_S)
    await results.flush()
    assert await results.get("acme", "large", 0) is None
    assert await valkey_store.execute("DBSIZE") == 0


async def test_what_cannot_be_read_is_a_miss(valkey_store):
    results = Results(StoredResults(valkey_store))
    results.put("acme", "d", result(), HOUR_S)
    await results.flush()
    [key] = await valkey_store.execute("KEYS", "*:cache:*")
    for broken in (b"", b"\xff", b"\x93\x01\x02\xc4\x01\x05"):
        await valkey_store.execute("SET", key, broken)
        assert await Results(StoredResults(valkey_store)).get("acme", "d", 0) is None


async def test_what_was_slipped_in_for_a_sealed_tenant_is_a_miss(valkey_store):
    sealing = Sealing([b"k" * KEY_BYTES], ["acme"])
    results = Results(StoredResults(valkey_store, sealing))
    results.put("acme", "d", result(), HOUR_S)
    await results.flush()
    [key] = await valkey_store.execute("KEYS", "*:cache:*")
    await valkey_store.execute("SET", key, b"something else")
    assert await Results(StoredResults(valkey_store, sealing)).get("acme", "d", 0) is None


async def test_what_is_put_is_looked_for_in_this_process_without_the_store():
    results = Results()
    assert results.recent("acme", "d", 0) is None
    assert not results.put("acme", "d", result(), HOUR_S)
    assert results.recent("acme", "d", 1000.0) == result()
    assert results.recent("acme", "d", 1000.5) is None
    assert await results.look("acme", "d", 0, "word 0", HOUR_S) == NOBODY


async def test_a_look_claims_what_is_not_there_or_too_old(valkey_store):
    ours, theirs = Results(StoredResults(valkey_store)), Results(StoredResults(valkey_store))
    assert await ours.look("acme", "d", 0, "ours 0", HOUR_S) == Look(None, "ours 0")
    assert await theirs.look("acme", "d", 0, "theirs 0", HOUR_S) == Look(None, "ours 0")
    assert ours.put("acme", "d", result(), HOUR_S, "ours 0")
    await ours.flush()
    assert await theirs.look("acme", "d", 1000.0, "theirs 0", HOUR_S) == Look(result(), "")
    assert theirs.recent("acme", "d", 1000.0) == result()
    assert await theirs.look("acme", "d", 1000.5, "theirs 0", HOUR_S) == Look(None, "theirs 0")
    assert await ours.look("acme", "d", 1000.5, "ours 0", HOUR_S) == Look(None, "theirs 0")


async def test_a_claim_is_renewed_and_left(valkey_store):
    results = Results(StoredResults(valkey_store))
    await results.look("acme", "d", 0, "ours 0", HOUR_S)
    assert await results.renew("acme", "d", "ours 0", HOUR_S)
    results.leave("acme", "d", "ours 0", "", HOUR_S)
    await results.flush()
    assert not await results.renew("acme", "d", "ours 0", HOUR_S)
    assert await valkey_store.execute("DBSIZE") == 0


async def test_a_claim_may_still_be_ours_while_the_store_is_out(tmp_path):
    store = Store.connect(f"unix://{tmp_path}/none.sock", timeout_s=5)
    results = Results(StoredResults(store))
    for _ in range(2):
        assert await results.renew("acme", "d", "ours 0", HOUR_S)
    await store.close()


async def test_a_store_that_is_out_is_a_miss_and_then_left_alone(tmp_path):
    store = Store.connect(f"unix://{tmp_path}/none.sock", timeout_s=5)
    asked = []

    class Asking(StoredResults):
        async def get(self, tenant, digest):
            asked.append(digest)
            return await super().get(tenant, digest)

    results = Results(Asking(store))
    assert await results.get("acme", "a", 0) is None
    results._rests_until = time.monotonic() + 60  # as if that was just now, however slow the machine is
    assert await results.get("acme", "b", 0) is None
    results.put("acme", "b", result(), HOUR_S)
    assert await results.get("acme", "b", 0) == result()
    assert asked == ["a"]
    await store.close()
