"""API keys on both kinds of store."""

from __future__ import annotations

import asyncio
import logging
import secrets

import msgspec
import pytest

from runtime.store.client import Store
from runtime.store.errors import InvalidName, StoreUnavailable
from serve_apps.gateway import keys as keys_module
from serve_apps.gateway.keys import (
    AdminExists,
    ExpiredKey,
    InvalidEndpoint,
    InvalidKey,
    KeyRecord,
    KeyRejected,
    KeyStore,
    NoSuchKey,
    RevokedKey,
)
from serve_apps.gateway.limits import Allowance, Limits
from tests.serve_apps.clock import NOW, Clock

PEPPER = bytes(range(32))


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
    assert len(keys._known) == 0


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
    clock.now += 1.49
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
    clock.now += 1.51
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


async def test_the_cache_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "CACHE_SIZE", 5)
    keys = KeyStore(store, PEPPER)
    for number in range(12):
        token, _ = await keys.create("acme", str(number))
        await keys.authenticate(token)
    assert len(keys._known) == 5


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
    assert len(cut_off._known) == 0
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


async def test_a_key_has_all_that_its_making_says(keys: KeyStore) -> None:
    token, record = await keys.create(
        "acme", "ci", team="research", role="member", endpoints=["/v1/*"], created_by="user-1", functions=True
    )
    assert record == KeyRecord(
        record.key_id,
        "acme",
        "ci",
        NOW,
        team="research",
        role="member",
        endpoints=["/v1/*"],
        functions=True,
        created_by="user-1",
    )
    caller = (await keys.authenticate(token)).caller()
    assert (caller.id, caller.tenant, caller.team, caller.role, caller.endpoints, caller.functions) == (
        *(record.key_id, "acme", "research", "member"),
        *(["/v1/*"], True),
    )
    with pytest.raises(InvalidName, match="team"):
        await keys.create("acme", "ci", team="a:b")
    for bad in (["v1"], ["/" + "*a" * 9], ["/v1"] * 101):
        with pytest.raises(InvalidEndpoint):
            await keys.create("acme", "ci", endpoints=bad)


async def test_a_change_is_seen_here_at_once_and_elsewhere_within_the_cache_time(
    store: Store, keys: KeyStore, clock: Clock
) -> None:
    elsewhere = KeyStore(store, PEPPER, clock=clock, monotonic=clock)
    token, record = await keys.create("acme", "ci")
    await elsewhere.authenticate(token)
    wanted = msgspec.structs.replace(record, role="owner", team="b", models=["m"], name="new")
    assert await keys.change(record.key_id, lambda _: wanted) == (record, wanted)
    assert await keys.authenticate(token) == wanted
    assert await elsewhere.authenticate(token) == record
    clock.now += 1.51
    assert await elsewhere.authenticate(token) == wanted


async def test_no_change_moves_a_key_or_brings_it_back(store: Store, keys: KeyStore) -> None:
    token, record = await keys.create("acme", "ci", created_by="k0")
    await keys.revoke(record.key_id)
    wanted = msgspec.structs.replace(
        record, key_id="0" * 32, tenant="rival", revoked=False, created=0.0, created_by="me", name="new"
    )
    _, after = await keys.change(record.key_id, lambda _: wanted)
    assert after == msgspec.structs.replace(record, revoked=True, name="new")
    assert await keys.get(record.key_id) == after
    with pytest.raises(RevokedKey):
        await keys.authenticate(token)
    assert await store.execute("TTL", f"cgh:apikey:{record.key_id}") > 0
    with pytest.raises(NoSuchKey):
        await keys.change("0" * 32, lambda each: each)


async def test_changes_at_once_undo_nothing_of_each_other(store: Store, keys: KeyStore) -> None:
    _, record = await keys.create("acme", "0")

    def one_more(each: KeyRecord) -> KeyRecord:
        return msgspec.structs.replace(each, name=str(int(each.name) + 1))

    others = [KeyStore(store, PEPPER) for _ in range(4)]
    await asyncio.gather(*(each.change(record.key_id, one_more) for each in others for _ in range(5)))
    assert (await keys.get(record.key_id)).name == "20"  # type: ignore[union-attr]


async def test_a_changed_end_is_when_the_store_forgets(store: Store, keys: KeyStore, clock: Clock) -> None:
    _, record = await keys.create("acme", "ci")
    name = f"cgh:apikey:{record.key_id}"
    soon = msgspec.structs.replace(record, expires=NOW + 60)
    await keys.change(record.key_id, lambda _: soon)
    assert await store.execute("PTTL", name) > 0
    await keys.change(record.key_id, lambda _: record)
    assert await store.execute("PTTL", name) == -1


async def test_a_rotation_lets_the_old_secret_go_on_for_a_while(
    store: Store, keys: KeyStore, clock: Clock
) -> None:
    elsewhere = KeyStore(store, PEPPER, clock=clock, monotonic=clock)
    first, made = await keys.create("acme", "ci")
    await elsewhere.authenticate(first)
    second, record = await keys.rotate(made.key_id, overlap_s=60)
    assert record == msgspec.structs.replace(made, old_secret_until=NOW + 60)
    assert first != second
    clock.now += 1.51
    for each in (keys, elsewhere):
        assert await each.authenticate(first) == await each.authenticate(second) == record
    clock.now += 59
    assert await keys.authenticate(second) == record
    with pytest.raises(InvalidKey):
        await keys.authenticate(first)


async def test_a_second_rotation_ends_the_oldest_secret(keys: KeyStore) -> None:
    first, made = await keys.create("acme", "ci")
    second, _ = await keys.rotate(made.key_id, overlap_s=60)
    third, _ = await keys.rotate(made.key_id, overlap_s=60)
    with pytest.raises(InvalidKey):
        await keys.authenticate(first)
    await keys.authenticate(second)
    await keys.authenticate(third)
    await keys.revoke(made.key_id)
    for token in (second, third):
        with pytest.raises(RevokedKey):
            await keys.authenticate(token)


async def test_a_rotation_without_overlap_ends_the_old_secret_at_once(keys: KeyStore) -> None:
    first, made = await keys.create("acme", "ci")
    await keys.rotate(made.key_id)
    with pytest.raises(InvalidKey):
        await keys.authenticate(first)


async def test_what_cannot_be_rotated(keys: KeyStore) -> None:
    _, made = await keys.create("acme", "ci")
    for overlap in (-1.0, 1e9, float("nan")):
        with pytest.raises(ValueError, match="old secret"):
            await keys.rotate(made.key_id, overlap_s=overlap)
    await keys.revoke(made.key_id)
    for key_id in (made.key_id, "0" * 32):
        with pytest.raises(NoSuchKey):
            await keys.rotate(key_id)


async def test_when_a_key_was_used_is_written_once_a_minute(
    store: Store, keys: KeyStore, clock: Clock
) -> None:
    token, made = await keys.create("acme", "ci")
    with pytest.raises(InvalidKey):
        await keys.authenticate(token[:-4] + "AAAA")
    assert keys._uses == {}
    for _ in range(5):
        await keys.authenticate(token)
        await keys._flush_uses()
    assert (await keys.get(made.key_id)).last_used == NOW  # type: ignore[union-attr]
    elsewhere = KeyStore(store, PEPPER, clock=clock, monotonic=clock)
    clock.now += 59
    for each in (keys, elsewhere):
        await each.authenticate(token)
        assert each._uses == {}
    clock.now += 2
    for each in (keys, elsewhere):
        await each.authenticate(token)
    clock.now += 5
    await keys._flush_uses()
    await elsewhere._flush_uses()
    assert (await keys.get(made.key_id)).last_used == NOW + 61  # type: ignore[union-attr]


async def test_noting_a_use_brings_no_key_back(store: Store, keys: KeyStore) -> None:
    token, made = await keys.create("acme", "ci")
    await keys.authenticate(token)
    await store.execute("DEL", f"cgh:apikey:{made.key_id}")
    await keys._flush_uses()
    assert await store.execute("EXISTS", f"cgh:apikey:{made.key_id}") == 0


async def test_uses_are_noted_in_the_background(keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "_FLUSH_S", 0.01)
    token, made = await keys.create("acme", "ci")
    await keys.authenticate(token)
    noting = asyncio.ensure_future(keys.note_uses())
    async with asyncio.timeout(60):
        while (await keys.get(made.key_id)).last_used is None:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
    noting.cancel()
    assert (await keys.get(made.key_id)).last_used == NOW  # type: ignore[union-attr]


async def test_the_first_key_of_an_admin_is_made_once(keys: KeyStore, clock: Clock) -> None:
    token, made = await keys.bootstrap("platform", "first")
    assert (await keys.authenticate(token)).role == "admin"
    with pytest.raises(AdminExists, match=made.key_id):
        await keys.bootstrap("platform", "second")
    await keys.revoke(made.key_id)
    _, second = await keys.bootstrap("platform", "second")
    await keys.change(second.key_id, lambda each: msgspec.structs.replace(each, expires=NOW + 10))
    clock.now += 11
    _, third = await keys.bootstrap("platform", "third")
    await keys.change(third.key_id, lambda each: msgspec.structs.replace(each, role="owner"))
    _, other = await keys.create("acme", "other")
    await keys.change(other.key_id, lambda each: msgspec.structs.replace(each, role="admin"))
    with pytest.raises(AdminExists, match=other.key_id):
        await keys.bootstrap("platform", "fourth")


async def test_of_many_that_bootstrap_at_once_one_does(store: Store) -> None:
    made = await asyncio.gather(
        *(KeyStore(store, PEPPER).bootstrap("platform", str(number)) for number in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, tuple) for each in made) == 1
    assert sum(isinstance(each, AdminExists) for each in made) == 4
