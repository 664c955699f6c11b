"""A process that runs graphs, to be killed.

    python -m tests.runtime.durability.host STORE CALLS LEASE_S [RUN]

It writes a line to CALLS for each call of a model: its process id and the request id. With RUN it begins the
run of that id. Then it attends to whatever runs there are, until it is killed. It says when it is ready.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import aclosing
from pathlib import Path

from cluster.engines.fake import FakeScript
from graphs.nodes.agent import Agent, AgentTool
from graphs.nodes.llm import Llm
from graphs.nodes.value import Value
from graphs.ports import STRING, Port
from runtime.durability.attending import attend
from runtime.durability.stored import StoredJournals
from runtime.executor.kinds.kind import Resources
from runtime.plan import ExecutionPlan
from runtime.request import RunRequest
from runtime.runner import Runner
from runtime.store.client import Store
from tests.runtime.executor.plans import body, node, plan
from tests.runtime.parts import generator

TENANT = "acme"
STEPS = 6
LINKS = 8
CALL_S = 0.1


def the_plan() -> ExecutionPlan:
    """plan (an agent) ─► n0 ─► n1 … n7"""
    tools = {"look": AgentTool("Looks.", {"q": Port(STRING)})}
    looked = body(node("found", Value(), value="${args.q}"), found="${found.value}")
    agent = Agent("m", tools, max_steps=STEPS, max_prompt_tokens=8192)
    nodes = [node("plan", agent, {"look": looked}, prompt="${inputs.question}", history=[])]
    for index in range(LINKS):
        before = "plan" if index == 0 else f"n{index - 1}"
        nodes.append(node(f"n{index}", Llm("m", max_tokens=4), prompt=f"${{{before}.text}}", history=[]))
    return plan(*nodes, text=f"${{n{LINKS - 1}.text}}", steps="${plan.steps}")


class Told:
    """A pool that writes down what it is asked."""

    def __init__(self, calls: Path) -> None:
        self._pool = generator("m", FakeScript(first_token_s=CALL_S))
        self._calls = calls
        self.info, self.count_tokens = self._pool.info, self._pool.count_tokens

    async def generate(self, call):
        with self._calls.open("a") as file:
            file.write(f"{os.getpid()} {call.request_id}\n")
        async with aclosing(self._pool.generate(call)) as batches:
            async for batch in batches:
                yield batch


def request_of(run_id: str) -> RunRequest:
    inputs = {"question": "why is it so"}
    return RunRequest(run_id, "g", inputs, time.time() + 300, TENANT, durability="step")


async def serve(url: str, calls: Path, lease_s: float, run_id: str | None) -> None:
    journals = StoredJournals(Store.connect(url, timeout_s=5), f"host-{os.getpid()}", lease_s=lease_s)
    runner = Runner([the_plan()], Resources({"m": Told(calls)}), journals=journals)
    if run_id is not None:
        await runner.start(request_of(run_id))
    print("ready", flush=True)
    await attend(runner, journals, lease_s, look_every_s=0.1)


if __name__ == "__main__":
    store_url, calls_file, lease, *runs = sys.argv[1:]
    asyncio.run(serve(store_url, Path(calls_file), float(lease), runs[0] if runs else None))
