"""One of several runners makes a result: the others wait for it as long as that is worth it."""

import asyncio
import sys
import time

import pytest

from runtime.cache import claims as module
from runtime.cache.claims import APART, LEASE_S, Asked, Claims, Sought
from runtime.cache.flights import MUCH_MORE_URGENT
from runtime.cache.results import MAX_RESULT_BYTES, Result, Results
from runtime.cache.stored import StoredResults
from runtime.sealing import KEY_BYTES, Sealing
from runtime.store.client import Store

HOUR_S = 3600.0
MADE = Result({"text": "a"}, 1000.0, 7)

OWNER = """
import asyncio, sys
from runtime.cache.claims import Asked, Claims
from runtime.cache.results import Results
from runtime.cache.stored import StoredResults
from runtime.store.client import Store

async def main(url):
    claims = Claims(Results(StoredResults(Store.connect(url, timeout_s=20))), lease_s=600.0)
    asked = Asked("acme", "d", 0.0, 0, 1e12)
    async with claims.holding(asked, await claims.seek(asked)):
        print("makes it", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main(sys.argv[1]))
"""


def asked(tenant: str = "acme", *, oldest: float = 0.0, priority: int = 0, within_s: float = HOUR_S) -> Asked:
    return Asked(tenant, "d", oldest, priority, time.time() + within_s)


def claims_on(store: Store, sealing: Sealing | None = None, lease_s: float = 600.0) -> Claims:
    """Of another runner each time."""
    return Claims(Results(StoredResults(store, sealing)), lease_s=lease_s)


async def waiting(follower: Claims, what: Asked) -> asyncio.Task[Sought]:
    """Somebody who looks, once he has learned that another makes it."""
    seeking = asyncio.create_task(follower.seek(what))
    while not follower._waits:
        assert not seeking.done()
        await asyncio.sleep(0.001)
    return seeking


async def settled(*those: Claims) -> None:
    for each in those:
        await each._results.flush()


async def called_off(seeking: asyncio.Task[Sought], follower: Claims) -> None:
    seeking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await seeking
    await settled(follower)


async def keys(store: Store, pattern: str = "*:cache-claim:*") -> list[str]:
    return [key.decode() for key in await store.execute("KEYS", pattern)]


async def test_who_waits_has_what_the_other_made(store):
    owner, follower = claims_on(store), claims_on(store)
    mine = await owner.seek(asked())
    assert (mine.result, mine.waited, mine.word != "") == (None, False, True)
    async with owner.holding(asked(), mine):
        theirs = await waiting(follower, asked())
    owner.keep(asked(), mine, MADE, HOUR_S)
    assert await theirs == Sought(MADE, waited=True)
    await settled(owner, follower)
    assert await keys(store) == []
    assert await follower.seek(asked()) == Sought(MADE)


async def test_what_is_kept_is_claimed_by_nobody(valkey_store):
    owner, other = claims_on(valkey_store), claims_on(valkey_store)
    owner.keep(asked(), Sought(), MADE, HOUR_S)
    await settled(owner)
    assert await other.seek(asked()) == Sought(MADE)
    assert await keys(valkey_store) == []


async def test_what_is_too_old_is_made_by_one(valkey_store):
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    owner.keep(asked(), Sought(), MADE, HOUR_S)
    await settled(owner)
    newer = asked(oldest=2000.0)
    mine = await owner.seek(newer)
    assert mine.word
    async with owner.holding(newer, mine):
        theirs = await waiting(follower, newer)
    owner.keep(newer, mine, MADE._replace(made=3000.0), HOUR_S)
    assert (await theirs).result == MADE._replace(made=3000.0)


async def test_an_owner_that_is_killed_is_followed_by_another(valkey_url, valkey_store):
    follower = claims_on(valkey_store)
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, valkey_url, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        assert await owner.stdout.readline() == b"makes it\n"
        theirs = await waiting(follower, asked())
    finally:
        owner.kill()
        await owner.communicate()
    [key] = await keys(valkey_store)
    assert await valkey_store.execute("PEXPIRE", key, 1000)  # nobody renews it any more
    sought = await theirs
    assert (sought.result, sought.waited) == (None, True)
    assert sought.word


async def test_a_claim_lasts_while_its_owner_works(valkey_store, monkeypatch):
    monkeypatch.setattr(module, "RENEWALS", 6000)
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    mine = await owner.seek(asked())
    async with owner.holding(asked(), mine):
        [key] = await keys(valkey_store)
        theirs = await waiting(follower, asked())
        await valkey_store.execute("PEXPIRE", key, 30_000)
        while await valkey_store.execute("PTTL", key) <= 30_000:
            await asyncio.sleep(0.01)
        assert (await valkey_store.execute("GET", key)).decode() == mine.word
        assert not theirs.done()
    owner.keep(asked(), mine, MADE, HOUR_S)
    assert (await theirs).result == MADE


async def test_an_owner_whose_claim_is_anothers_renews_it_no_more(valkey_store, monkeypatch):
    monkeypatch.setattr(module, "RENEWALS", 6000)
    owner = claims_on(valkey_store)
    mine = await owner.seek(asked())
    renewals = asyncio.create_task(owner._renew(asked(), mine.word))
    [key] = await keys(valkey_store)
    await valkey_store.execute("SET", key, "another 0", "PX", 30_000)
    await renewals
    assert await valkey_store.execute("GET", key) == b"another 0"
    assert 0 < await valkey_store.execute("PTTL", key) <= 30_000


async def test_work_that_was_cancelled_is_done_by_the_next(valkey_store):
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    mine = await owner.seek(asked())

    async def work():
        async with owner.holding(asked(), mine):
            await asyncio.sleep(HOUR_S)

    working = asyncio.create_task(work())
    theirs = await waiting(follower, asked())
    working.cancel()
    sought = await theirs
    assert (sought.result, sought.waited) == (None, True)
    assert sought.word
    assert working.cancelled()


async def test_after_work_that_failed_each_makes_its_own(valkey_store):
    owner, *followers = (claims_on(valkey_store) for _ in range(3))
    mine = await owner.seek(asked())
    theirs = []

    async def work():
        async with owner.holding(asked(), mine):
            theirs.extend([await waiting(each, asked()) for each in followers])
            raise LookupError

    with pytest.raises(LookupError):
        await work()
    assert await asyncio.gather(*theirs) == [Sought(waited=True)] * 2
    assert await owner.seek(asked()) == Sought()
    [key] = await keys(valkey_store)
    assert await valkey_store.execute("GET", key) == APART.encode()
    assert 0 < await valkey_store.execute("PTTL", key) <= 600_000


async def test_of_what_cannot_be_kept_each_makes_its_own(valkey_store):
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    mine = await owner.seek(asked())
    async with owner.holding(asked(), mine):
        theirs = await waiting(follower, asked())
    owner.keep(asked(), mine, MADE._replace(outputs={"text": "x" * MAX_RESULT_BYTES}), HOUR_S)
    assert await theirs == Sought(waited=True)


async def test_what_comes_too_late_is_not_kept(valkey_store):
    late, other = claims_on(valkey_store), claims_on(valkey_store)
    first = await late.seek(asked())
    [key] = await keys(valkey_store)
    await valkey_store.execute("DEL", key)  # as if it had lapsed
    second = await other.seek(asked())
    assert second.word not in ("", first.word)
    late.keep(asked(), first, MADE._replace(outputs={"text": "late"}), HOUR_S)
    await settled(late)
    assert (await valkey_store.execute("GET", key)).decode() == second.word
    other.keep(asked(), second, MADE, HOUR_S)
    await settled(other)
    late.keep(asked(), first, MADE._replace(outputs={"text": "later still"}), HOUR_S)
    await settled(late)
    assert (await claims_on(valkey_store).seek(asked())).result == MADE


async def test_who_is_cancelled_while_waiting_leaves_the_owner_alone(valkey_store):
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    mine = await owner.seek(asked())
    async with owner.holding(asked(), mine):
        theirs = await waiting(follower, asked())
        await called_off(theirs, follower)
        [key] = await keys(valkey_store)
        assert (await valkey_store.execute("GET", key)).decode() == mine.word
        assert follower._waits == 0


async def test_who_is_cancelled_while_looking_claims_nothing(valkey_store):
    claims = claims_on(valkey_store)
    look = claims._results.look
    looked = asyncio.Event()

    async def lost(*args):
        """The store has answered, and nobody hears it."""
        await look(*args)
        looked.set()
        await asyncio.sleep(HOUR_S)

    claims._results.look = lost
    seeking = asyncio.create_task(claims.seek(asked()))
    await looked.wait()
    assert len(await keys(valkey_store)) == 1
    await called_off(seeking, claims)
    assert await keys(valkey_store) == []


async def test_nobody_waits_beyond_half_of_the_time_that_is_left(valkey_store):
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    mine = await owner.seek(asked())
    async with owner.holding(asked(), mine):
        late = asked(within_s=3.0)
        assert await follower.seek(late) == Sought(waited=True)
        assert late.deadline - time.time() <= 1.51
        assert await follower.seek(asked(within_s=-1.0)) == Sought(waited=True)


async def test_nobody_waits_for_what_is_much_less_urgent(valkey_store):
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    slow = asked(priority=MUCH_MORE_URGENT)
    mine = await owner.seek(slow)
    async with owner.holding(slow, mine):
        assert await follower.seek(asked(priority=0)) == Sought()
        theirs = await waiting(follower, asked(priority=1))
        await called_off(theirs, follower)


async def test_tenants_wait_for_none_but_their_own(valkey_store):
    owner, other = claims_on(valkey_store), claims_on(valkey_store)
    mine = await owner.seek(asked())
    async with owner.holding(asked(), mine):
        theirs = await other.seek(asked("other"))
        assert theirs.word
        assert not theirs.waited
        assert sorted(each.split(":")[1] for each in await keys(valkey_store)) == ["{acme}", "{other}"]
    other.keep(asked("other"), theirs, MADE, HOUR_S)
    await settled(other)
    assert await claims_on(valkey_store)._results.get("acme", "d", 0.0) is None


async def test_runs_without_a_tenant_claim_nothing(valkey_store):
    assert await claims_on(valkey_store).seek(asked("")) == Sought()
    assert await valkey_store.execute("DBSIZE") == 0


async def test_a_sealed_tenants_question_cannot_be_told_from_its_claim(valkey_store):
    sealing = Sealing([b"k" * KEY_BYTES], ["acme"])
    owner, follower = claims_on(valkey_store, sealing), claims_on(valkey_store, sealing)
    mine = await owner.seek(asked())
    async with owner.holding(asked(), mine):
        theirs = await waiting(follower, asked())
        plain = await claims_on(valkey_store).seek(asked())
        assert plain.word  # whoever lacks the key finds another place
        assert len(set(await keys(valkey_store))) == 2
    owner.keep(asked(), mine, MADE, HOUR_S)
    assert (await theirs).result == MADE
    [key] = await keys(valkey_store, "*:cache:*")
    assert b"text" not in await valkey_store.execute("GET", key)


async def test_a_word_that_nobody_understands_is_not_waited_for(valkey_store):
    owner = claims_on(valkey_store)
    await owner.seek(asked())
    [key] = await keys(valkey_store)
    for odd in (b"", b"\xff\xfe", b"who am I"):
        await valkey_store.execute("SET", key, odd)
        assert await claims_on(valkey_store).seek(asked()) == Sought()


async def test_what_one_runner_holds_and_waits_for_is_bounded(valkey_store, monkeypatch):
    monkeypatch.setattr(module, "MAX_CLAIMS", 1)
    monkeypatch.setattr(module, "MAX_WAITS", 1)
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    mine = await owner.seek(asked())
    async with owner.holding(asked(), mine):
        assert await owner.seek(asked()._replace(digest="e")) == Sought()
        theirs = await waiting(follower, asked())
        assert await follower.seek(asked()) == Sought()
        await called_off(theirs, follower)
    assert (await owner.seek(asked()._replace(digest="e"))).word


async def test_a_store_that_is_out_keeps_nobody_waiting(tmp_path):
    store = Store.connect(f"unix://{tmp_path}/none.sock", timeout_s=5)
    claims = claims_on(store)
    assert await claims.seek(asked()) == Sought()
    await store.close()


async def test_who_waits_goes_on_alone_when_the_store_goes_out(valkey_store):
    owner, follower = claims_on(valkey_store), claims_on(valkey_store)
    mine = await owner.seek(asked())
    async with owner.holding(asked(), mine):
        theirs = await waiting(follower, asked())
        follower._results._rests_until = time.monotonic() + 60
        assert await theirs == Sought(waited=True)


def test_pauses_grow_with_the_time_waited(monkeypatch):
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module.time, "time", lambda: 0.0)
    pauses = []
    for pause in module._pauses(deadline=60.0):
        pauses.append(pause)
        now += pause
    assert 129.99 < now <= 130.01
    assert 0.004 < pauses[0] <= 0.01
    assert max(pauses) <= module.MAX_PAUSE_S
    assert len(pauses) < 400
    assert LEASE_S > 2 * module.MAX_PAUSE_S
