"""Whatever a body holds, the answer is never a 5xx and always has the shape of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.engines.fake import FakeEngine
from runtime.approvals.book import ApprovalBook
from runtime.context.store import ContextStore
from runtime.records.store import RunStore
from runtime.store.client import Store
from serve_apps.audit.log import AuditLog
from serve_apps.gateway.app import build_app
from serve_apps.gateway.deps import GatewayDeps
from serve_apps.gateway.directory import Directory
from serve_apps.gateway.http import ASGIApp
from serve_apps.gateway.idempotency import AnswerStore
from serve_apps.gateway.key_tokens import PEPPER_BYTES
from serve_apps.gateway.keys import KeyStore
from serve_apps.gateway.quotas import QuotaLedger
from serve_apps.gateway.responses import ResponseStore
from serve_apps.translators import openai as bodies
from tests.serve_apps.conftest import CHAT, EMBED, chat_pool, embed_pool

KINDS = {
    "/v1/chat/completions": bodies.ChatBody,
    "/v1/completions": bodies.CompletionBody,
    "/v1/embeddings": bodies.EmbeddingBody,
}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "robot"])},
    optional={"content": ANY, "tool_calls": ANY, "name": ANY, "tool_call_id": ANY},
)


def body_for(path: str) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies that get past the first check: right names, and values that are right, near, or anything."""
    names = [name for name in KINDS[path].__struct_encode_fields__ if name not in ("model", "stream")]
    near = st.booleans() | st.integers(-2, 300) | st.floats(-3, 3) | st.text(max_size=8)
    values = dict.fromkeys(names, near | ANY)
    values["messages"] = st.lists(MESSAGE, max_size=4)
    return st.fixed_dictionaries(
        {"model": st.sampled_from([CHAT, EMBED, "graph/x", ""])},
        optional={name: values[name] for name in names} | {"stream": st.booleans()},
    )


class Caller:
    """Calls the application as a server would, without one, on a loop that outlives the examples."""

    def __init__(self, loop: asyncio.AbstractEventLoop, app: ASGIApp, token: str) -> None:
        self._loop = loop
        self._app = app
        self._headers = [
            (b"authorization", f"Bearer {token}".encode()),
            (b"content-type", b"application/json"),
        ]

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        return self._loop.run_until_complete(self._post(path, body))

    async def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        sent: list[Any] = []
        incoming = iter([{"type": "http.request", "body": body}])

        async def receive() -> Any:
            for message in incoming:
                return message
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": self._headers}
        await self._app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.fixture(scope="module")
def caller(valkey_url: str) -> Iterator[Caller]:
    with asyncio.Runner() as runner:
        store = Store.connect(valkey_url, timeout_s=5.0)
        engine = FakeEngine()
        keys = KeyStore(store, bytes(PEPPER_BYTES))
        app = build_app(
            GatewayDeps(
                approvals=ApprovalBook(store),
                answers=AnswerStore(store),
                responses=ResponseStore(store),
                pools={CHAT: chat_pool(engine), EMBED: embed_pool(engine)},
                keys=keys,
                audit=AuditLog(store, bytes(PEPPER_BYTES)),
                directory=Directory(store),
                quotas=QuotaLedger(store),
                contexts=ContextStore(store),
                runs=RunStore(store),
            )
        )
        token, _ = runner.run(keys.create("fuzz", "fuzz"))
        lifespan = runner.run(start(app))
        yield Caller(runner.get_loop(), app, token)
        runner.run(lifespan.stop())
        runner.run(store.close())


class Lifespan:
    """Holds an application's lifespan open."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        self.incoming.put_nowait({"type": "lifespan.shutdown"})
        assert (await self.outgoing.get())["type"] == "lifespan.shutdown.complete"
        assert self.task is not None
        await self.task


async def start(app: ASGIApp) -> Lifespan:
    lifespan = Lifespan()
    scope = {"type": "lifespan", "state": {}}
    lifespan.task = asyncio.ensure_future(app(scope, lifespan.incoming.get, lifespan.outgoing.put))
    lifespan.incoming.put_nowait({"type": "lifespan.startup"})
    assert (await lifespan.outgoing.get())["type"] == "lifespan.startup.complete"
    await asyncio.sleep(0)
    return lifespan


def check(status: int, answer: bytes) -> None:
    assert status < 500, answer
    if status >= 400:
        assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", KINDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bodies_with_the_right_names(caller: Caller, path: str, data: st.DataObject) -> None:
    body = data.draw(body_for(path))
    check(*caller.post(path, json.dumps(body).encode()))


@pytest.mark.parametrize("path", KINDS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=ANY.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100))
def test_bodies_of_anything(caller: Caller, path: str, body: bytes) -> None:
    status, answer = caller.post(path, body)
    check(status, answer)
    assert status >= 400


def test_a_good_body_is_answered(caller: Caller) -> None:
    """Else the tests above would look at refusals only."""
    body = {"model": CHAT, "messages": [{"role": "user", "content": "hi"}]}
    status, answer = caller.post("/v1/chat/completions", json.dumps(body).encode())
    assert (status, json.loads(answer)["object"]) == (200, "chat.completion")
