"""Approvals on both kinds of store: the first decision holds, waiting ends, tenants are apart."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from cluster.errors import ModelUnavailable
from runtime.approvals.book import ApprovalBook
from runtime.approvals.model import MAX_VALUE_BYTES, Answer, Approval, Asked, Decision
from runtime.errors import NodeError
from runtime.store.client import Store
from runtime.store.errors import InvalidName

YES = Decision(True, "fine", decided=5.0, by="key-1")
NO = Decision(False, decided=6.0, by="key-2")


@pytest.fixture
def book(store: Store) -> ApprovalBook:
    return ApprovalBook(store)


def asked(node: str = "review", value: Any = "a text", at: float = 0.0) -> Asked:
    return Asked(node, "May it?", value, at, time.time() + 30)


async def waiting(book: ApprovalBook, question: Asked, tenant: str = "acme") -> asyncio.Task[Answer]:
    """A task that waits, once the question is there."""
    told = asyncio.Event()
    task = asyncio.create_task(book.wait(tenant, "run-1", question, told.set))
    await told.wait()
    return task


async def test_a_decision_ends_the_wait(book: ApprovalBook) -> None:
    question = asked()
    task = await waiting(book, question)
    assert await book.of_run("acme", "run-1") == [Approval(question)]
    assert await book.decide("acme", "run-1", "review", YES) == "taken"
    assert await task == Answer(True, "fine", "a text")
    assert await book.of_run("acme", "run-1") == [Approval(question, YES)]


async def test_a_value_takes_the_place_of_the_one_shown(book: ApprovalBook) -> None:
    task = await waiting(book, asked(value={"to": "ada"}))
    other = Decision(True, value={"to": "eve"})
    assert await book.decide("acme", "run-1", "review", other) == "taken"
    assert (await task).value == {"to": "eve"}


@pytest.mark.parametrize(
    ("shown", "given", "outcome"),
    [
        ("text", "other", "taken"),
        ("text", 3, "unfit"),
        (True, 1, "unfit"),
        (1, 2.5, "taken"),
        (["a"], [], "taken"),
        (["a"], "a", "unfit"),
        ({"a": None}, {"a": 1}, "taken"),
        ({"a": 1}, None, "unfit"),
        (None, 3, "taken"),
    ],
)
async def test_what_is_given_is_of_the_kind_of_what_was_shown(
    book: ApprovalBook, shown: Any, given: Any, outcome: str
) -> None:
    task = await waiting(book, asked(value=shown))
    assert await book.decide("acme", "run-1", "review", Decision(True, value=given)) == outcome
    task.cancel()
    await asyncio.wait([task])


async def test_of_many_decisions_one_holds(book: ApprovalBook) -> None:
    task = await waiting(book, asked())
    many = [Decision(bool(i % 2), str(i)) for i in range(10)]
    outcomes = await asyncio.gather(*(book.decide("acme", "run-1", "review", each) for each in many))
    assert sorted(outcomes) == ["late"] * 9 + ["taken"]
    assert (await task).comment == str(outcomes.index("taken"))


async def test_a_decision_that_comes_after_another_is_late(book: ApprovalBook) -> None:
    task = await waiting(book, asked())
    await book.decide("acme", "run-1", "review", NO)
    assert await book.decide("acme", "run-1", "review", YES) == "late"
    assert (await task).approved is False


async def test_what_nobody_waits_for(book: ApprovalBook) -> None:
    task = await waiting(book, asked())
    for tenant, run_id, node in [
        ("other", "run-1", "review"),
        ("acme", "run-2", "review"),
        ("acme", "run-1", "revew"),
    ]:
        assert await book.decide(tenant, run_id, node, YES) == "unknown"
    assert await book.of_run("other", "run-1") == []
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_a_wait_that_is_cancelled_withdraws_its_question(book: ApprovalBook) -> None:
    task = await waiting(book, asked())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await book.of_run("acme", "run-1") == []
    assert await book.decide("acme", "run-1", "review", YES) == "unknown"


async def test_a_node_that_asks_again_asks_anew(book: ApprovalBook) -> None:
    first = await waiting(book, asked())
    await book.decide("acme", "run-1", "review", NO)
    await first
    second = await waiting(book, asked(at=1.0))
    assert await book.decide("acme", "run-1", "review", YES) == "taken"
    assert (await second).approved


async def test_the_oldest_question_comes_first(book: ApprovalBook) -> None:
    tasks = [await waiting(book, asked(f"n{at}", at=at)) for at in (3.0, 1.0, 2.0)]
    assert [each.asked.node for each in await book.of_run("acme", "run-1")] == ["n1.0", "n2.0", "n3.0"]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_bounds(store: Store) -> None:
    book = ApprovalBook(store, most=1)
    with pytest.raises(NodeError, match="more than"):
        await book.wait("acme", "run-1", asked(value="x" * MAX_VALUE_BYTES), lambda: None)
    task = await waiting(book, asked("a"))
    with pytest.raises(NodeError, match="waits for 1 approvals already"):
        await book.wait("acme", "run-1", asked("b"), lambda: None)
    task.cancel()
    await asyncio.wait([task])


async def test_questions_are_forgotten_in_time(book: ApprovalBook, store: Store) -> None:
    task = await waiting(book, asked())
    ttl = await store.execute("PTTL", "cgh:{acme}:approvals:run-1")
    assert 3_600_000 < ttl < 3_640_000
    task.cancel()
    await asyncio.wait([task])


async def test_a_question_that_the_store_lost_fails_the_node(book: ApprovalBook, store: Store) -> None:
    task = await waiting(book, asked())
    await store.execute("DEL", "cgh:{acme}:approvals:run-1")
    with pytest.raises(NodeError, match="lost"):
        await task


async def test_names_are_checked(book: ApprovalBook) -> None:
    with pytest.raises(InvalidName):
        await book.decide("a:b", "run-1", "review", YES)
    with pytest.raises(InvalidName):
        await book.of_run("acme", "run:1")


async def test_without_a_store_nobody_can_be_asked() -> None:
    store = Store.connect("redis://127.0.0.1:1")
    with pytest.raises(ModelUnavailable, match="nobody can be asked"):
        await ApprovalBook(store).wait("acme", "run-1", asked(), lambda: None)
    await store.close()


async def test_a_question_that_stays_is_the_same_when_it_is_put_again(book: ApprovalBook) -> None:
    question = asked(at=7.0)
    told = asyncio.Event()
    first = asyncio.create_task(book.wait("acme", "run-1", question, told.set, lambda: True))
    await told.wait()
    first.cancel()
    await asyncio.wait([first])
    assert await book.of_run("acme", "run-1") == [Approval(question)]
    assert not await book.any_decided("acme", "run-1", ["review"])
    assert await book.decide("acme", "run-1", "review", YES) == "taken"
    assert await book.any_decided("acme", "run-1", ["other", "review"])
    assert not await book.any_decided("acme", "run-1", ["other"])
    assert await (await waiting(book, question)) == Answer(True, "fine", "a text")
    another = await waiting(book, asked(at=8.0))
    assert await book.of_run("acme", "run-1") != [Approval(question, YES)]
    another.cancel()
    await asyncio.wait([another])
