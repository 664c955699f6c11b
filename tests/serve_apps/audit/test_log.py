"""Audit logs on both kinds of store: raced for, read, tampered with, and put aside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import structlog

from runtime.store.client import Store
from runtime.store.errors import InvalidName, StoreUnavailable
from serve_apps.audit.log import AuditLog
from serve_apps.audit.model import PLATFORM, Anchor, AuditBroken, Deed, Verdict, WrongAnchor, parse_anchor

SECRET = bytes(range(32))
NOW = 1_900_000_000.0
LOG, HEAD = "cgh:{acme}:audit:log", "cgh:{acme}:audit:head"


def deed(name: str = "k1", tenant: str = "acme", action: str = "key.create") -> Deed:
    return Deed(tenant, "boss", "acme", "owner", action, f"key/{name}", "r-1", after="d1", changed=["name"])


@pytest.fixture
def audit(store: Store) -> AuditLog:
    return AuditLog(store, SECRET, clock=lambda: NOW)


async def fill(audit: AuditLog, entries: int = 5) -> None:
    for number in range(entries):
        await audit.write(deed(f"k{number}"))


async def test_entries_are_numbered_and_told_the_newest_first(audit: AuditLog) -> None:
    await fill(audit)
    entries = await audit.newest("acme", 3)
    assert [entry.sequence for entry in entries] == [5, 4, 3]
    assert entries[0].at == NOW
    assert (entries[0].object, entries[0].outcome, entries[0].changed) == ("key/k4", "allowed", ["name"])
    assert [entry.sequence for entry in await audit.newest("acme", 3, before=3)] == [2, 1]
    assert await audit.newest("acme", 3, before=1) == []
    verdict = await audit.verify("acme")
    assert verdict.sound
    assert verdict.entries == 5
    assert verdict.anchor == await audit.head("acme")


async def test_each_organisation_has_a_log_of_its_own(audit: AuditLog) -> None:
    await audit.write(deed())
    await audit.write(deed(tenant="other"))
    await audit.write(deed(tenant=PLATFORM))
    for tenant in ("acme", "other", PLATFORM):
        (entry,) = await audit.newest(tenant, 10)
        assert (entry.tenant, entry.sequence) == (tenant, 1)
        assert (await audit.verify(tenant)).entries == 1
    assert await audit.newest("nobody", 10) == []
    assert await audit.head("nobody") is None
    assert (await audit.verify("nobody")).sound
    for wrong in ("a:b", "{acme}", ""):
        with pytest.raises(InvalidName):
            await audit.newest(wrong, 10)


async def test_a_log_longer_than_a_page(audit: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.audit.log._PAGE", 2)
    await fill(audit, 7)
    assert (await audit.verify("acme")).entries == 7


@pytest.fixture
def short(store: Store, monkeypatch: pytest.MonkeyPatch) -> AuditLog:
    """A log that keeps ten entries, and looks at every fifth for what may go."""
    monkeypatch.setattr("serve_apps.audit.log.LET_GO_EVERY", 5)
    return AuditLog(store, SECRET, keep=10, clock=lambda: NOW)


async def test_the_oldest_entries_are_let_go_and_the_rest_is_verified(store: Store, short: AuditLog) -> None:
    await fill(short, 12)
    old = await short.head("acme")
    await fill(short, 15)
    kept = await short.newest("acme", 100)
    assert [entry.sequence for entry in kept] == list(range(27, 15, -1))
    verdict = await short.verify("acme", [old] if old is not None else [])
    assert (verdict.sound, verdict.entries) == (True, 27)
    assert verdict.anchor == await short.head("acme")
    await fill(short, 30)
    assert len(await short.newest("acme", 100)) <= 15
    assert (await AuditLog(store, SECRET).verify("acme")).sound


async def test_a_log_that_begins_later_than_we_let_it_is_found(store: Store, short: AuditLog) -> None:
    await fill(short, 20)
    floor = "cgh:{acme}:audit:floor"
    was = await store.execute("HGETALL", floor)
    early, anchor = dict(zip(was[::2], was[1::2], strict=True)), await short.head("acme")
    assert anchor is not None
    await fill(short, 10)
    now = await store.execute("HGETALL", floor)
    cut = await store.execute("XRANGE", LOG, "23-0", "23-0")
    for forged in (
        ["sequence", 23, "mac", cut[0][1][3], "seal", early[b"seal"]],
        [word for pair in early.items() for word in pair],
        ["sequence", 20, "mac", bytes(32), "seal", bytes(32)],
    ):
        await store.execute("DEL", floor)
        await store.execute("HSET", floor, *forged)
        assert not (await short.verify("acme")).sound
    await store.execute("DEL", floor)
    assert not (await short.verify("acme")).sound
    await store.execute("HSET", floor, *now)
    assert (await short.verify("acme")).sound
    floored = Anchor("acme", 20, anchor.mac)
    assert (await short.verify("acme", [floored])).sound
    assert not (await short.verify("acme", [Anchor("acme", 20, "0" * 64)])).sound


async def test_what_was_tampered_with_is_not_let_go(store: Store, short: AuditLog) -> None:
    """Or the seal of what is gone would say that it had been sound."""
    await fill(short, 8)
    await _edit(store)
    await fill(short, 20)
    assert len(await short.newest("acme", 100)) == 28
    assert (await short.verify("acme")).first_bad == 3


async def test_a_log_that_is_put_aside_begins_from_the_first_entry_again(
    store: Store, short: AuditLog
) -> None:
    await fill(short, 20)
    await _drop_head(store)
    with pytest.raises(AuditBroken):
        await short.write(deed())
    await short.restart(deed(action="audit.restart"))
    assert ((await short.verify("acme")).sound, (await short.verify("acme")).entries) == (True, 1)


async def test_gateways_that_race_lose_no_entry(store_url: str, store: Store) -> None:
    stores = [Store.connect(store_url, timeout_s=5) for _ in range(4)]
    logs = [AuditLog(each, SECRET) for each in stores]

    async def verify() -> list[Verdict]:
        return [await logs[0].verify("acme") for _ in range(10)]

    try:
        writing = [logs[number % 4].write(deed(f"k{number}")) for number in range(60)]
        entries, looks = await asyncio.gather(asyncio.gather(*writing), verify())
        assert sorted(entry.sequence for entry in entries) == list(range(1, 61))
        assert all(look.sound for look in looks), looks
        assert {entry.object for entry in await logs[0].newest("acme", 100)} == {
            f"key/k{number}" for number in range(60)
        }
        assert (await logs[1].verify("acme")).entries == 60
    finally:
        for each in stores:
            await each.close()


async def _edit(store: Store) -> None:
    """Entry 3, with its own MAC."""
    found = await store.execute("XRANGE", LOG, "-", "+")
    await store.execute("DEL", LOG)
    for place, fields in found:
        packed = fields[1].replace(b"boss", b"boot") if place == b"3-0" else fields[1]
        await store.execute("XADD", LOG, place, "entry", packed, "mac", fields[3])


async def _reorder(store: Store) -> None:
    found = await store.execute("XRANGE", LOG, "-", "+")
    found[2][1], found[3][1] = found[3][1], found[2][1]
    await store.execute("DEL", LOG)
    for place, fields in found:
        await store.execute("XADD", LOG, place, *fields)


async def _drop_head(store: Store) -> None:
    await store.execute("DEL", HEAD)


async def _drop_log(store: Store) -> None:
    await store.execute("DEL", LOG)


async def _delete(store: Store) -> None:
    await store.execute("XDEL", LOG, "3-0")


async def _trim_the_oldest(store: Store) -> None:
    await store.execute("XTRIM", LOG, "MAXLEN", 3)


async def _truncate(store: Store) -> None:
    await store.execute("XDEL", LOG, "4-0", "5-0")


async def _insert(store: Store) -> None:
    await store.execute("XADD", LOG, "6-0", "entry", "x", "mac", "y")


async def _foreign_fields(store: Store) -> None:
    await store.execute("XADD", LOG, "6-0", "hello", "x")


async def _break_seal(store: Store) -> None:
    await store.execute("HSET", HEAD, "seal", "x")


async def _break_number(store: Store) -> None:
    await store.execute("HSET", HEAD, "sequence", "many")


Tampering = Callable[[Store], Awaitable[None]]


@pytest.mark.parametrize(
    ("tamper", "first_bad", "takes_more"),
    [
        (_edit, 3, True),
        (_reorder, 3, True),
        (_delete, 3, True),
        (_trim_the_oldest, 1, True),
        (_truncate, 4, False),
        (_insert, 6, False),
        (_foreign_fields, 6, False),
        (_drop_log, 1, False),
        (_drop_head, 6, False),
        (_break_seal, 6, False),
        (_break_number, 6, False),
    ],
)
async def test_what_is_done_in_the_store_is_found(
    store: Store, audit: AuditLog, tamper: Tampering, first_bad: int, takes_more: bool
) -> None:
    await fill(audit)
    await tamper(store)
    verdict = await audit.verify("acme")
    assert verdict.first_bad == first_bad, verdict
    if takes_more:  # what comes behind hides nothing
        await audit.write(deed("more"))
    else:  # what came behind would seal the rest as whole
        with pytest.raises(AuditBroken):
            await audit.write(deed("more"))
    assert (await audit.verify("acme")).first_bad == first_bad


async def test_a_store_set_back_is_found_by_an_anchor(store: Store, audit: AuditLog) -> None:
    await fill(audit, 3)
    kept = {key: await store.execute("DUMP", key) for key in (LOG, HEAD)}
    await fill(audit, 2)
    anchor = await audit.head("acme")
    assert anchor is not None
    for key, dump in kept.items():
        await store.execute("RESTORE", key, 0, dump, "REPLACE")
    assert (await audit.verify("acme")).sound
    assert (await audit.verify("acme", [anchor])).first_bad == 4
    await store.execute("DEL", LOG, HEAD)
    assert (await audit.verify("acme", [anchor])).first_bad == 1
    foreign = msgspec.structs.replace(anchor, tenant="other")
    assert (await audit.verify("acme", [foreign])).sound


async def test_a_change_is_written_down_before_it_happens(audit: AuditLog) -> None:
    async with audit.changing(deed()) as entry:
        assert [each.sequence for each in await audit.newest("acme", 9)] == [entry.sequence]
    assert len(await audit.newest("acme", 9)) == 1


async def test_a_change_that_fails_is_told_of_too(audit: AuditLog) -> None:
    with pytest.raises(ValueError, match="no"):
        async with audit.changing(deed()):
            raise ValueError("no")
    failed, intended = await audit.newest("acme", 9)
    assert (failed.outcome, failed.of) == ("failed", intended.sequence)
    assert intended.outcome == "allowed"


async def test_nothing_happens_that_cannot_be_written_down(store: Store, audit: AuditLog) -> None:
    await fill(audit)
    await _drop_head(store)
    with pytest.raises(AuditBroken):
        async with audit.changing(deed()):
            pytest.fail("the change happened")


async def test_nothing_happens_while_the_store_is_out(mute_url: str) -> None:
    mute = Store.connect(mute_url, timeout_s=0.2)
    try:
        with pytest.raises(StoreUnavailable):
            async with AuditLog(mute, SECRET).changing(deed()):
                pytest.fail("the change happened")
        with structlog.testing.capture_logs() as logs:
            await AuditLog(mute, SECRET).refused(deed())
        assert [line["event"] for line in logs] == ["refusal_not_audited"]
    finally:
        await mute.close()


async def test_refusals_do_not_fill_the_log(audit: AuditLog) -> None:
    for _ in range(5):
        await audit.refused(deed())
    await audit.refused(deed(action="key.revoke"))
    entries = await audit.newest("acme", 9)
    assert [(each.outcome, each.action) for each in entries] == [
        ("refused", "key.revoke"),
        ("refused", "key.create"),
    ]


async def test_a_broken_log_is_put_aside_and_says_so(store: Store, audit: AuditLog) -> None:
    await fill(audit)
    before = await audit.head("acme")
    assert before is not None
    await _truncate(store)
    restarted = await audit.restart(deed("log", action="audit.restart"))
    assert (restarted.sequence, restarted.action) == (1, "audit.restart")
    assert (await audit.verify("acme")).sound
    assert not (await audit.verify("acme", [before])).sound
    assert await store.execute("XLEN", f"{LOG}:set-aside:{int(NOW * 1000)}") == 3
    assert await store.execute("EXISTS", f"{HEAD}:set-aside:{int(NOW * 1000)}") == 1


async def test_every_entry_is_in_the_log_of_the_process_too(audit: AuditLog) -> None:
    """A third place, which whoever has the store alone does not reach."""
    with structlog.testing.capture_logs() as logs:
        await audit.write(deed())
    anchor = await audit.head("acme")
    assert anchor is not None
    (line,) = logs
    assert (line["event"], line["sequence"], line["mac"]) == ("audited", 1, anchor.mac)


def test_an_anchor_as_text() -> None:
    anchor = Anchor("acme.eu", 12, "ab" * 32)
    assert parse_anchor(f" {anchor}\n") == anchor
    assert parse_anchor(f"-:1:{'0' * 64}").tenant == PLATFORM
    for wrong in ("", "acme:12", f"acme:x:{'0' * 64}", f"a b:1:{'0' * 64}", f"acme:1:{'0' * 63}g"):
        with pytest.raises(WrongAnchor, match="audit head"):
            parse_anchor(wrong)
