"""Responses in the store: bounded, sealed where the tenant says so, read as a chain."""

from __future__ import annotations

import asyncio

import pytest

from cluster.messages import Message
from runtime.sealing import EVERYONE, KEY_BYTES, Sealing
from runtime.store.client import Store
from runtime.store.errors import StoreUnavailable
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.errors import BadRequest, NotFound
from serve_apps.gateway.responses import KeptResponse, ResponseStore

ADA = Caller("acme", "ada")
EVE = Caller("rival", "eve")


def name(number: int) -> str:
    return f"resp_{number:032x}"


def response(number: int, previous: int | None = None, text: str = "hi", model: str = "m") -> KeptResponse:
    return KeptResponse(
        name(number),
        model,
        b'{"answer": %d}' % number,
        b"[]",
        [Message("user", f"{text} {number}")],
        None if previous is None else name(previous),
    )


async def said(responses: ResponseStore, number: int, caller: Caller = ADA) -> list[object]:
    return [turn.content for turn in await responses.conversation(caller, name(number))]


async def test_a_chain_is_read_in_order(store: Store) -> None:
    responses = ResponseStore(store)
    for number in range(4):
        await responses.put("acme", response(number, number - 1 if number else None))
    await responses.put("acme", response(9, 1))
    assert await said(responses, 3) == ["hi 0", "hi 1", "hi 2", "hi 3"]
    assert await said(responses, 9) == ["hi 0", "hi 1", "hi 9"]
    assert await responses.answer(ADA, name(2)) == b'{"answer": 2}'
    assert await responses.items(ADA, name(2)) == b"[]"


async def test_a_chain_with_a_gap_is_not_continued(valkey_store: Store) -> None:
    responses = ResponseStore(valkey_store)
    for number in range(3):
        await responses.put("acme", response(number, number - 1 if number else None))
    await responses.delete(ADA, name(1))
    with pytest.raises(NotFound, match=name(1)):
        await responses.conversation(ADA, name(2))


async def test_a_chain_is_bounded(valkey_store: Store) -> None:
    responses = ResponseStore(valkey_store, longest=3)
    for number in range(4):
        await responses.put("acme", response(number, number - 1 if number else None))
    assert len(await said(responses, 2)) == 3
    with pytest.raises(BadRequest, match="at most 3"):
        await responses.conversation(ADA, name(3))


async def test_a_chain_that_bites_its_tail_ends(valkey_store: Store) -> None:
    responses = ResponseStore(valkey_store)
    await responses.put("acme", response(0, 1))
    await responses.put("acme", response(1, 0))
    with pytest.raises(BadRequest, match="at most"):
        await responses.conversation(ADA, name(0))


@pytest.mark.parametrize(
    "response_id", [name(0), name(7), "resp_", "", "x" * 1000, "a:b", "{acme}", "../resp"]
)
async def test_nobody_sees_what_is_another_tenants(valkey_store: Store, response_id: str) -> None:
    responses = ResponseStore(valkey_store)
    await responses.put("acme", response(0))
    for ask in (responses.answer, responses.items, responses.conversation, responses.delete):
        with pytest.raises(NotFound):
            await ask(EVE, response_id)
    assert await responses.answer(ADA, name(0))


async def test_a_key_needs_the_model_of_all_that_it_continues(valkey_store: Store) -> None:
    responses = ResponseStore(valkey_store)
    await responses.put("acme", response(0, model="large"))
    await responses.put("acme", response(1, 0, model="small"))
    narrow = Caller("acme", "narrow", models=["small"])
    assert await responses.answer(narrow, name(1))
    for ask, number in ((responses.answer, 0), (responses.conversation, 1), (responses.delete, 0)):
        with pytest.raises(NotFound):
            await ask(narrow, name(number))


async def test_what_was_not_used_for_longest_goes_first(store: Store) -> None:
    responses = ResponseStore(store, most=3)
    for number in range(3):
        await responses.put("acme", response(number))
        await asyncio.sleep(0.002)  # another millisecond of the store's clock
    await said(responses, 0)
    await asyncio.sleep(0.002)
    await responses.put("acme", response(3))
    assert await said(responses, 0) == ["hi 0"]
    with pytest.raises(NotFound):
        await responses.answer(ADA, name(1))


async def test_a_tenants_bytes_are_bounded(valkey_store: Store) -> None:
    responses = ResponseStore(valkey_store, most_bytes=10_000)
    for number in range(8):
        await responses.put("acme", response(number, text="x" * 3_000))
    kept = int(await valkey_store.execute("GET", "cgh:{acme}:response-bytes"))
    assert await valkey_store.execute("ZCARD", "cgh:{acme}:responses") == 3
    assert 9_000 < kept <= 10_000
    for number in (5, 6, 7):
        await responses.delete(ADA, name(number))
    assert int(await valkey_store.execute("GET", "cgh:{acme}:response-bytes")) == 0


async def test_everything_has_an_end(valkey_store: Store) -> None:
    responses = ResponseStore(valkey_store, keep_s=100)
    await responses.put("acme", response(0))
    for key in await valkey_store.execute("KEYS", "cgh:{acme}:response*"):
        assert 0 < await valkey_store.execute("PTTL", key) <= 100_000


async def test_sealed_responses_hold_no_plain_text(valkey_store: Store) -> None:
    sealing = Sealing([bytes(KEY_BYTES)], [EVERYONE])
    responses = ResponseStore(valkey_store, sealing=sealing)
    await responses.put("acme", response(0, text="canary"))
    await responses.put("acme", response(1, 0, text="canary"))
    kept = await valkey_store.execute("HGETALL", f"cgh:{{acme}}:response:{name(0)}")
    assert b"canary" not in b"".join(kept)
    assert await said(responses, 1) == ["canary 0", "canary 1"]
    swapped = await valkey_store.execute("HGET", f"cgh:{{acme}}:response:{name(1)}", "turns")
    await valkey_store.execute("HSET", f"cgh:{{acme}}:response:{name(0)}", "turns", swapped)
    with pytest.raises(NotFound):
        await responses.conversation(ADA, name(0))


async def test_without_a_store_there_is_no_answer(mute_url: str) -> None:
    mute = Store.connect(mute_url, timeout_s=0.1)
    with pytest.raises(StoreUnavailable):
        await ResponseStore(mute).answer(ADA, name(0))
    await mute.close()
