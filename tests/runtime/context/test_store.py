"""Contexts on both kinds of store."""

from __future__ import annotations

import asyncio
import pickle

import msgspec
import pytest

from cluster.messages import Message
from runtime.context.errors import ContextConflict, ContextTooLarge
from runtime.context.model import Context
from runtime.context.store import ContextStore
from runtime.store.client import Store
from runtime.store.errors import InvalidName


@pytest.fixture
def contexts(store: Store) -> ContextStore:
    return ContextStore(store, ttl_s=60)


def turn(text: str, role: str = "user") -> Message:
    return msgspec.convert({"role": role, "content": text}, Message)


def texts(context: Context) -> list[object]:
    return [message.content for message in context.session_history]


async def test_an_unknown_context_is_empty_and_of_version_0(contexts: ContextStore) -> None:
    assert await contexts.load("acme", "c-1") == Context("c-1")


async def test_turns_are_kept_as_they_were_and_in_order(contexts: ContextStore) -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    first = [turn("hi"), Message("assistant", None, tool_calls=[call])]
    second = [
        Message("tool", "42", tool_call_id="t1"),
        Message("user", [{"type": "text", "text": "ü"}], name="ann"),
    ]
    assert await contexts.append("acme", "c-1", first) == 1
    assert await contexts.append("acme", "c-1", second) == 2
    context = await contexts.load("acme", "c-1")
    assert context.session_history == first + second
    assert context.version == 2


async def test_an_append_with_a_stale_version_changes_nothing(contexts: ContextStore) -> None:
    await contexts.append("acme", "c-1", [turn("a")], expected_version=0)
    with pytest.raises(ContextConflict, match="version 1") as caught:
        await contexts.append("acme", "c-1", [turn("b")], expected_version=0)
    assert caught.value.current_version == 1
    assert await contexts.append("acme", "c-1", [turn("c")], expected_version=1) == 2
    assert texts(await contexts.load("acme", "c-1")) == ["a", "c"]


async def test_of_concurrent_turns_none_is_lost_or_torn(contexts: ContextStore) -> None:
    async def talk(number: int) -> int:
        return await contexts.append("acme", "c-1", [turn(f"q{number}"), turn(f"a{number}", "assistant")])

    versions = await asyncio.gather(*(talk(number) for number in range(100)))
    assert sorted(versions) == list(range(1, 101))
    said = texts(await contexts.load("acme", "c-1"))
    order = [str(text)[1:] for text in said[::2]]
    assert sorted(order, key=int) == [str(number) for number in range(100)]
    assert said == [text for number in order for text in (f"q{number}", f"a{number}")]


async def test_of_concurrent_writers_with_one_version_one_wins(contexts: ContextStore) -> None:
    writes = (contexts.append("acme", "c-1", [turn(str(n))], expected_version=0) for n in range(50))
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert results.count(1) == 1
    assert sum(isinstance(result, ContextConflict) for result in results) == 49
    assert len((await contexts.load("acme", "c-1")).session_history) == 1


async def test_a_whole_document_is_replaced_by_version(contexts: ContextStore) -> None:
    document = Context(
        "c-1",
        session_history=[turn("a"), turn("b")],
        user_profile={"name": "Ann", "age": 7},
        environmental_variables={"locale": "de"},
        tool_definitions=[{"type": "function"}],
        intermediate_results={"retrieve": [1, 2]},
        system_instructions="Be brief.",
    )
    assert await contexts.replace("acme", document, 0) == 1
    with pytest.raises(ContextConflict):
        await contexts.replace("acme", document, 0)
    assert await contexts.append("acme", "c-1", [turn("c")]) == 2
    kept = await contexts.load("acme", "c-1")
    assert kept == msgspec.structs.replace(
        document, version=2, session_history=[turn("a"), turn("b"), turn("c")]
    )
    shorter = msgspec.structs.replace(kept, session_history=[turn("z")])
    assert await contexts.replace("acme", shorter, 2) == 3
    assert texts(await contexts.load("acme", "c-1")) == ["z"]


async def test_beyond_the_bounds_the_oldest_turns_go(store: Store) -> None:
    few = ContextStore(store, max_turns=3)
    for text in "abcde":
        await few.append("acme", "few", [turn(text)])
    assert texts(await few.load("acme", "few")) == ["c", "d", "e"]

    small = ContextStore(store, max_bytes=200)
    for number in range(20):
        await small.append("acme", "small", [turn(str(number) * 30)])
        stored = await store.execute("LRANGE", "cgh:{acme}:context:small:turns", 0, -1)
        assert sum(map(len, stored)) <= 200
    assert str((await small.load("acme", "small")).session_history[-1].content).startswith("19")


async def test_what_cannot_fit_is_refused(store: Store) -> None:
    contexts = ContextStore(store, max_turns=2, max_bytes=200)
    await contexts.append("acme", "c-1", [turn("a")])
    with pytest.raises(ContextTooLarge, match="2 turns and 200 bytes"):
        await contexts.append("acme", "c-1", [turn("x" * 300)])
    with pytest.raises(ContextTooLarge):
        await contexts.append("acme", "c-1", [turn("x")] * 3)
    assert texts(await contexts.load("acme", "c-1")) == ["a"]


async def test_a_tool_result_whose_call_was_dropped_is_not_shown(store: Store) -> None:
    contexts = ContextStore(store, max_turns=2)
    result = Message("tool", "42", tool_call_id="t1")
    await contexts.append("acme", "c-1", [Message("assistant", "calls"), result])
    await contexts.append("acme", "c-1", [turn("thanks")])
    assert texts(await contexts.load("acme", "c-1")) == ["thanks"]


async def test_a_change_renews_the_time_to_live(store: Store, contexts: ContextStore) -> None:
    for _ in range(2):
        await contexts.append("acme", "c-1", [turn("a")])
        for part in ("document", "turns"):
            key = f"cgh:{{acme}}:context:c-1:{part}"
            assert 59 <= await store.execute("TTL", key) <= 60
            await store.execute("EXPIRE", key, 5)


async def test_delete_says_whether_there_was_one(store: Store, contexts: ContextStore) -> None:
    await contexts.append("acme", "c-1", [turn("a")])
    assert await contexts.delete("acme", "c-1")
    assert not await contexts.delete("acme", "c-1")
    assert await store.execute("DBSIZE") == 0
    assert await contexts.load("acme", "c-1") == Context("c-1")


async def test_tenants_do_not_see_each_other(contexts: ContextStore) -> None:
    await contexts.append("acme", "c-1", [turn("secret")])
    for tenant in ("acme2", "acm", "ACME", "acme-"):
        assert texts(await contexts.load(tenant, "c-1")) == []
        assert not await contexts.delete(tenant, "c-1")


@pytest.mark.parametrize(
    "bad", ["", "a:b", "a{b", "a}b", "../a", "a b", "a\n", "ü", "-a", ".a", "x" * 129, "a\x00", "*"]
)
async def test_names_that_could_reach_other_keys_are_refused(contexts: ContextStore, bad: str) -> None:
    with pytest.raises(InvalidName, match="a tenant is 1 to 128 ASCII letters"):
        await contexts.load(bad, "c-1")
    with pytest.raises(InvalidName, match="a contextId is 1 to 128 ASCII letters"):
        await contexts.append("acme", bad, [turn("a")])


@pytest.mark.parametrize("error", [ContextConflict(3), ContextTooLarge(5, 4)])
def test_errors_survive_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
