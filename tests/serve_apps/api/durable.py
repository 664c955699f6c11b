"""A gateway with durable runs: real runners over one set of journals, on the fake engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import msgspec

from cluster.engines.fake import FakeEngine, FakeScript, Rule
from cluster.errors import ReplicaLost
from cluster.interface import Batch
from cluster.messages import Generate
from graphs.loader import load
from runtime.approvals.book import ApprovalBook
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.durability.attending import attend
from runtime.durability.memory import MemoryJournals
from runtime.durability.model import Checkpoint
from runtime.events import NodeFinished, RunEvent
from runtime.executor.kinds.kind import Resources
from runtime.records.cancelling import end_cancelled
from runtime.records.log import RunLog
from runtime.records.store import RunStore
from runtime.request import RunRequest
from runtime.runner import Runner
from runtime.store.client import Store
from serve_apps.gateway.inline import Deployed, InlinePipelines
from serve_apps.gateway.limits import Limits
from tests.serve_apps.conftest import CHAT, EMBED, Site, Start, chat_pool, embed_pool, eventually

PIPELINE = """
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: letter, version: 1.2.0}
inputs:
  topic: string
  ask: {type: boolean, default: false}
nodes:
  draft:
    llm: {model: tiny-chat, prompt: "draft of {{ topic }}", max_tokens: 20, max_prompt_tokens: 50}
    with: {topic: "${inputs.topic}"}
  review: {approval: {message: May this be sent?}, with: {value: "${draft.text}"}, when: inputs.ask}
  final:
    llm: {model: tiny-chat, prompt: "polish {{ text }}", max_tokens: 20, max_prompt_tokens: 50, stream: true}
    with: {text: "${draft.text}"}
    after: [review]
outputs:
  draft: ${draft.text}
  text: ${final.text}
"""
RULES = [
    Rule(contains="polish edited", reply="edited and polished"),
    Rule(contains="polish", reply="polished at last"),
    Rule(contains="draft", reply="draft"),
]
QUICK = FakeScript(rules=RULES)
SLOW_END = FakeScript(rules=RULES, token_s=60)
"""The last node has more than one token to say."""
LEASE_S = 60.0
"""No test waits for it, and none that is slow loses its own: the journals' clock is put forward."""


class Hearing(FakeEngine):
    """Remembers what it was asked."""

    def __init__(self, script: FakeScript) -> None:
        super().__init__(script)
        self.heard: list[str] = []

    def generate(self, call: Generate) -> AsyncGenerator[Batch, None]:
        self.heard.append(call.prompt or str(call.messages))
        return super().generate(call)


class Clock:
    """Unix seconds, put forward past the leases of a runner that died."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead_s

    def kill(self, runner: Runner) -> None:
        """The runner forgets what it holds, and its leases are over."""
        for lease in runner.leases:
            runner.lose(lease)
        self._ahead_s += LEASE_S


class Desk:
    """A gateway, its runners and what they share."""

    def __init__(
        self,
        site: Site,
        runners: list[Runner],
        logs: list[RunLog],
        journals: MemoryJournals,
        door: Door,
        clock: Clock,
    ) -> None:
        self.site = site
        self.logs = logs
        self.runners = runners
        self.journals = journals
        self.door = door
        self.clock = clock

    async def run(self, topic: str = "thanks", **body: Any) -> httpx.Response:
        ask = {"ask": body.pop("ask")} if "ask" in body else {}
        headers = body.pop("headers", None)
        return await self.site.http.post(
            "/v1/graphs/letter/runs",
            json={"inputs": {"topic": topic, **ask}, **body},
            headers=headers,
            timeout=120,
        )

    async def begin(self, topic: str = "thanks", **body: Any) -> str:
        """The id of a run in the background that keeps its steps."""
        answer = await self.run(topic, **{"background": True, "durability": "step", **body})
        assert answer.status_code == 202, answer.text
        run_id: str = answer.json()["run_id"]
        return run_id

    async def post(self, run_id: str, action: str, **body: Any) -> httpx.Response:
        return await self.site.http.post(f"/v1/runs/{run_id}/{action}", json=body, timeout=120)

    async def look(self, run_id: str) -> dict[str, Any]:
        answer = await self.site.http.get(f"/v1/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()
        return record

    async def is_now(self, run_id: str, *statuses: str) -> dict[str, Any]:
        """The record, once the run has one of these statuses."""

        async def so() -> bool:
            answer = await self.site.http.get(f"/v1/runs/{run_id}")
            return answer.status_code == 200 and answer.json()["status"] in statuses

        await eventually(so)
        return await self.look(run_id)

    async def events(self, run_id: str, after: int | None = None) -> list[tuple[int, dict[str, Any]]]:
        headers = {} if after is None else {"last-event-id": str(after)}
        answer = await self.site.http.get(f"/v1/runs/{run_id}/events", headers=headers, timeout=120)
        assert answer.status_code == 200, answer.text
        return numbered(answer.text)

    async def at_work(self, calls: int = 1) -> None:
        """Returns when the engine has so many calls."""

        async def busy() -> bool:
            return (await self.site.engine.status()).running == calls

        await eventually(busy)

    def asked(self, word: str) -> int:
        """Calls of the engine whose prompt has the word."""
        assert isinstance(self.site.engine, Hearing)
        return sum(word in prompt for prompt in self.site.engine.heard)


class Door:
    """The gateway's side of the runners: calls go to the first. It dies when it is told to."""

    def __init__(self, runners: list[Runner], clock: Clock) -> None:
        self._runners = runners
        self._clock = clock
        self.dies_at = ""
        """Node after whose end the first runner dies."""

    async def run(self, request: RunRequest) -> AsyncGenerator[list[RunEvent], None]:
        runner = self._runners[0]
        events = runner.run(request)
        async for event in events:
            yield [event]
            if isinstance(event, NodeFinished) and event.node == self.dies_at:
                self.dies_at = ""
                self._runners.reverse()
                self._clock.kill(runner)
                await events.aclose()
                raise ReplicaLost("it was killed")

    async def start(self, request: RunRequest, done: Sequence[Checkpoint] = ()) -> None:
        await self._runners[0].start(request, done)

    async def resume(self, tenant: str, run_id: str, deadline: float | None = None) -> None:
        await self._runners[0].resume(tenant, run_id, deadline)

    async def ready(self) -> bool:
        return True


StartDesk = Callable[..., Awaitable[Desk]]


@asynccontextmanager
async def desks(start: Start, store: Store) -> AsyncIterator[StartDesk]:
    """Starts gateways, each over two runners that share journals."""
    async with AsyncExitStack() as ending:

        def attended(work: Coroutine[Any, Any, None]) -> None:
            ending.push_async_callback(_ended, asyncio.create_task(work))

        async def start_one(
            script: FakeScript = QUICK, *, limits: Limits | None = None, pipeline: str = PIPELINE
        ) -> Desk:
            engine = Hearing(script)
            pools = {CHAT: chat_pool(engine), EMBED: embed_pool(engine)}
            catalog = Catalog(models={name: pool.info for name, pool in pools.items()}, indexes={})
            plans = [compile_pipeline(load(pipeline).pipeline, catalog)]
            clock = Clock()
            journals, records = MemoryJournals(lease_s=LEASE_S, clock=clock), RunStore(store)
            resources = Resources(pools, approvals=ApprovalBook(store))
            runners, logs = [], []
            for _ in range(2):
                log = RunLog(records)
                runner = Runner(plans, resources, log, journals, patience_s=0.5)
                attended(log.write())
                attended(end_cancelled(runner, records, every_s=0.02))
                attended(attend(runner, journals, LEASE_S, look_every_s=0.05))
                ending.push_async_callback(runner.hand_over)
                runners.append(runner)
                logs.append(log)
            door = Door(list(runners), clock)
            site = await start(
                pools=pools,
                graphs=runners[0].infos,
                runner=door,
                journals=journals,
                inline=InlinePipelines(Deployed(catalog)),
                limits=limits,
                tasks={"letters": "letter"},
            )
            site.engine = engine
            return Desk(site, runners, logs, journals, door, clock)

        yield start_one


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def numbered(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Server-sent events with their ids; 0 where there is none."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            event = msgspec.json.decode(fields["data"])
            assert fields["event"] in (event.get("type"), "error")
            found.append((int(fields.get("id", 0)), event))
    return found


def types(events: list[tuple[int, dict[str, Any]]]) -> list[str]:
    return [event["type"] for _, event in events]
