"""Claims of idempotency keys in the store, on real servers of both kinds."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from runtime.store.client import Store
from runtime.store.errors import StoreUnavailable
from serve_apps.gateway import idempotency
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.errors import Conflict, Unprocessable
from serve_apps.gateway.idempotency import AnswerStore, Claim, KeptAnswer, fingerprint_of
from tests.serve_apps.conftest import eventually

KEY = Caller("acme", "k1")
PRINT = fingerprint_of("/v1/chat/completions", False, b"{}")
ANSWER = KeptAnswer(200, [(b"content-type", b"application/json")], b"so")


async def claimed(answers: AnswerStore, given: bytes = b"one", key: Caller = KEY) -> Claim:
    claim = await answers.claim(key, given, PRINT)
    assert isinstance(claim, Claim)
    return claim


async def code_of(answers: AnswerStore, given: bytes = b"one") -> str:
    with pytest.raises(Conflict) as caught:
        await answers.claim(KEY, given, PRINT)
    return caught.value.code


async def test_one_claims_and_the_others_get_its_answer(store: Store) -> None:
    answers = AnswerStore(store)
    found = await asyncio.gather(
        *(AnswerStore(store).claim(KEY, b"one", PRINT) for _ in range(8)), return_exceptions=True
    )
    (claim,) = [each for each in found if isinstance(each, Claim)]
    assert sum(isinstance(each, Conflict) for each in found) == 7
    await claim.keep(ANSWER)
    assert await answers.claim(KEY, b"one", PRINT) == ANSWER
    with pytest.raises(Unprocessable):
        await answers.claim(KEY, b"one", fingerprint_of("/v1/chat/completions", False, b"{ }"))


async def test_keys_of_others_are_others(store: Store) -> None:
    answers = AnswerStore(store)
    await (await claimed(answers)).keep(ANSWER)
    await claimed(answers, key=Caller("acme", "k2"))
    await claimed(answers, key=Caller("rivals", "k1"))


async def test_what_is_released_is_free(store: Store) -> None:
    answers = AnswerStore(store)
    (await claimed(answers)).release()
    await answers.drain(60)
    await claimed(answers)


async def test_a_claim_is_renewed_while_its_gateway_lives(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = AnswerStore(store)
    claim = await claimed(answers)
    await store.execute("PEXPIRE", claim.key, 5_000)
    renewing = asyncio.create_task(answers.renew(every_s=0.01))

    async def renewed() -> bool:
        return bool(await store.execute("PTTL", claim.key) > 6_000)

    await eventually(renewed)
    renewing.cancel()
    await asyncio.wait([renewing])


async def test_the_claim_of_a_dead_gateway_becomes_void(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "CLAIM_S", 0.05)
    dead, alive = AnswerStore(store), AnswerStore(store)
    claim = await claimed(dead)

    async def void() -> bool:
        return not await store.execute("EXISTS", claim.key)

    await eventually(void)
    monkeypatch.setattr(idempotency, "CLAIM_S", 60.0)
    other = await claimed(alive)
    with capture_logs() as logged:
        await claim.keep(ANSWER)
    assert logged[0]["event"] == "idempotent_claim_lost"
    claim.release()
    await dead.drain(60)
    assert await code_of(alive) == "idempotency_in_flight"
    await other.keep(ANSWER)
    assert await alive.claim(KEY, b"one", PRINT) == ANSWER


async def test_beyond_the_bytes_the_oldest_answers_go_and_their_keys_stay(store: Store) -> None:
    answers = AnswerStore(store, most_bytes=2_500)
    for number in range(4):
        claim = await claimed(answers, b"%d" % number)
        await claim.keep(KeptAnswer(200, [], b"x" * 1_000))
        await asyncio.sleep(0.002)  # the store's clock orders them, by the millisecond
    assert [await code_of(answers, b"%d" % number) for number in (0, 1)] == ["idempotent_answer_not_kept"] * 2
    for number in (2, 3):
        assert isinstance(await answers.claim(KEY, b"%d" % number, PRINT), KeptAnswer)


async def test_beyond_the_most_the_oldest_keys_are_forgotten(store: Store) -> None:
    answers = AnswerStore(store, most=2)
    for number in range(3):
        await (await claimed(answers, b"%d" % number)).keep(ANSWER)
        await asyncio.sleep(0.002)
    assert isinstance(await answers.claim(KEY, b"2", PRINT), KeptAnswer)
    await claimed(answers, b"0")


async def test_answers_are_forgotten_after_a_while(store: Store) -> None:
    answers = AnswerStore(store, keep_s=0.05)
    claim = await claimed(answers)
    await claim.keep(ANSWER)

    async def forgotten() -> bool:
        return await store.execute("KEYS", "*once*") == []

    await eventually(forgotten)


async def test_without_the_store_nothing_is_claimed_and_what_was_is_logged(
    store: Store, mute_url: str
) -> None:
    claim = await claimed(AnswerStore(store))
    out = AnswerStore(Store.connect(mute_url, timeout_s=0.05))
    with pytest.raises(StoreUnavailable):
        await out.claim(KEY, b"one", PRINT)
    with capture_logs() as logged:
        await out.keep(claim, ANSWER)
        out.release(claim)
        await out.drain(60)
    assert [each["event"] for each in logged] == [
        "idempotent_answer_lost",
        "idempotent_claim_not_released",
    ]


async def test_the_store_holds_no_key_of_a_client(store: Store) -> None:
    answers = AnswerStore(store)
    await (await claimed(answers, b"secret-order-7")).keep(ANSWER)
    names = await store.execute("KEYS", "*")
    assert names
    assert not any(b"secret" in name for name in names)
