"""Which of several answers for a name."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from cluster.engines.fake import FakeEngine, FakeScript, FakeTokenCounter
from cluster.interface import ModelInfo, Pool
from cluster.pools.local import LocalPool
from serve_apps.gateway.traffic import MAX_TARGETS, Split, check_traffic
from tests.serve_apps.api.test_versions import start_versions
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, embed_pool, eventually

NEXT = "tiny-next"
WHO = [f"acme c{number}" for number in range(2_000)]
HALVES = {CHAT: {CHAT: 1.0, NEXT: 1.0}}
ASK: list[Any] = [{"role": "user", "content": "hello there"}]


def chosen(split: Split) -> dict[str, str]:
    return {who: split.order(who)[0] for who in WHO}


def test_each_has_its_part() -> None:
    served = list(chosen(Split("m", {"old": 9, "new": 1})).values())
    assert 150 < served.count("new") < 250
    assert served.count("old") + served.count("new") == len(WHO)


def test_who_was_on_the_trial_stays_when_its_part_grows_and_who_was_not_when_it_shrinks() -> None:
    small, large = chosen(Split("m", {"old": 95, "new": 5})), chosen(Split("m", {"old": 1, "new": 1}))
    moved = {who for who in WHO if small[who] != large[who]}
    assert moved
    assert all((small[who], large[who]) == ("old", "new") for who in moved)


def test_names_are_split_apart() -> None:
    first, second = chosen(Split("m", {"a": 1, "b": 1})), chosen(Split("n", {"a": 1, "b": 1}))
    assert 800 < sum(first[who] == second[who] for who in WHO) < 1_200


def test_what_has_no_weight_answers_nobody() -> None:
    split = Split("m", {"old": 3, "off": 0, "new": 1})
    assert {tuple(split.order(who)) for who in WHO} == {("old", "new"), ("new", "old")}
    assert set(chosen(Split("m", {"old": 0, "new": 2})).values()) == {"new"}


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ({"chat": {"chat": 0}}, "a weight above 0"),
        ({"chat": {}}, "list 1 to"),
        ({"chat": {f"m{n}": 1 for n in range(MAX_TARGETS + 1)}}, "list 1 to"),
        ({"chats": {"chat": 1}}, "there is no model 'chats'; there are chat, embed"),
        ({"chat": {"chat": 1, "new": 1}}, "there is no model 'new'"),
        ({"chat": {"chat": 1, "embed": 1}}, "'embed' is for 'embed', and 'chat' for 'generate'"),
        ({"graph/rag": {"graph/rag": 1}}, "write graph/rag@VERSION"),
        ({"graph/rag": {"graph/other@1.0.0": 1}}, "'graph/other@1.0.0' is no version of it"),
        ({"graph/rag@1.0.0": {"graph/rag@1.0.0": 1}}, "write graph/rag"),
    ],
)
def test_what_cannot_be_is_named(traffic: dict[str, dict[str, float]], said: str) -> None:
    with pytest.raises(ValueError, match="traffic") as refused:
        check_traffic(traffic, {"chat": "generate", "embed": "embed"})
    assert said in str(refused.value)


class Absent(LocalPool):
    """A model that is not there yet."""

    async def ready(self) -> bool:
        return False


def chat(name: str, kind: type[LocalPool] = LocalPool) -> LocalPool:
    engine = FakeEngine(FakeScript(output_tokens=3))
    return kind(ModelInfo(name, "generate", 2048, 64), engine, FakeTokenCounter())


def pools(kind: type[LocalPool] = LocalPool) -> dict[str, Pool]:
    return {CHAT: chat(CHAT), NEXT: chat(NEXT, kind), EMBED: embed_pool(FakeEngine())}


async def served_by(site: Site, session: str | None = None, path: str = "/v1/chat/completions") -> str:
    body = {"model": CHAT, "messages": ASK, "max_tokens": 4}
    if session is not None:
        body["user"] = session
    answer = await site.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == CHAT
    return answer.headers["x-served-by"]


async def test_a_conversation_stays_where_it_is_and_others_go_elsewhere(start: Start) -> None:
    site = await start(pools=pools(), traffic=HALVES)
    first = [await served_by(site, f"u{number}") for number in range(12)]
    assert set(first) == {CHAT, NEXT}
    assert [await served_by(site, f"u{number}") for number in range(12)] == first
    assert len({await served_by(site) for _ in range(5)}) == 1, "who names none is one"


async def test_a_key_needs_the_name_alone(start: Start) -> None:
    site = await start(pools=pools(), traffic={CHAT: {CHAT: 0.0, NEXT: 1.0}}, models=[CHAT])
    assert await served_by(site) == NEXT
    refused = await site.http.post("/v1/chat/completions", json={"model": NEXT, "messages": ASK})
    assert refused.status_code == 403


async def test_others_step_in_while_one_cannot_answer(start: Start) -> None:
    site = await start(pools=pools(Absent), traffic=HALVES, ready=False)

    async def answers() -> bool:
        body = {"model": CHAT, "messages": ASK, "max_tokens": 4}
        return (await site.http.post("/v1/chat/completions", json=body)).status_code == 200

    await eventually(answers)
    users = [f"u{number}" for number in range(12)]
    assert {Split(CHAT, HALVES[CHAT]).order(f"acme {user}")[0] for user in users} == {CHAT, NEXT}
    assert {await served_by(site, user) for user in users} == {CHAT}


async def test_each_dialect_is_split_and_others_are_not(start: Start) -> None:
    site = await start(pools=pools(), traffic={CHAT: {NEXT: 1.0}})
    prompt = {"model": CHAT, "prompt": "go on", "max_tokens": 4}
    for path, body in (
        ("/v1/completions", prompt),
        ("/v1/responses", {"model": CHAT, "input": "hello"}),
        ("/v1/messages", {"model": CHAT, "messages": ASK, "max_tokens": 4}),
    ):
        answer = await site.http.post(path, json=body)
        assert (answer.status_code, answer.headers["x-served-by"]) == (200, NEXT)
    other = await site.http.post("/v1/embeddings", json={"model": EMBED, "input": "a"})
    assert "x-served-by" not in other.headers


async def test_versions_of_a_graph(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    traffic = {"graph/helper": {"graph/helper@1.2.0": 1.0, "graph/helper@2.0.0-rc.1": 1.0}}
    site = await start_versions(start, traffic=traffic)

    async def run(path: str, body: dict[str, Any]) -> httpx.Response:
        answer = await site.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer

    seen = set()
    for number in range(12):
        chat = {"model": "graph/helper", "messages": ASK, "user": f"u{number}"}
        answer = await run("/v1/chat/completions", chat)
        version = answer.headers["x-served-by"].partition("@")[2]
        assert f"I am {version}." in answer.text
        again = await run("/v1/chat/completions", chat)
        assert again.headers["x-served-by"] == answer.headers["x-served-by"]
        seen.add(version)
    assert seen == {"1.2.0", "2.0.0-rc.1"}
    told = [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"event":"call"' in line]
    assert {call["tags"]["graph_version"] for call in told} == seen
    assert {call["model"] for call in told} == {"graph/helper"}
    named = await run("/v1/chat/completions", {"model": "graph/helper@1.10.0", "messages": ASK})
    assert "I am 1.10.0." in named.text
    assert "x-served-by" not in named.headers
