"""Pipelines of one node, runners and runs, for tests of what is saved."""

from __future__ import annotations

import asyncio
import random

import msgspec
from msgspec.structs import replace

from cluster.engines.fake import FakeScript
from graphs.nodes.llm import Llm
from graphs.pipeline import Policies
from runtime.cache.savings import Savings
from runtime.compiler.compile import compile_pipeline
from runtime.events import NodeFinished
from runtime.executor.kinds.kind import Resources
from runtime.runner import Runner
from tests.runtime.compiler.bodies import node, pipeline
from tests.runtime.parts import Shelf, pools, request

GREEDY = Llm(model="m", max_tokens=8, temperature=0)
SLOW = FakeScript(first_token_s=0.5)
NEVER = FakeScript(first_token_s=3600)
INPUTS = {"question": "why", "level": "a", "list": ["one", "two"]}


def ask(spec=GREEDY, **fields):
    """`inputs.question` answered by the model `m`."""
    return replace(node(spec, prompt="${inputs.question}"), **fields)


def asking(made, policies: Policies | None = None, port: str = "text"):
    """A pipeline of one node."""
    return replace(pipeline({"x": made}, o=f"${{x.{port}}}"), policies=policies or Policies())


def runner(made, pool, savings: Savings | None = None) -> Runner:
    models = pools() | {"m": pool}
    resources = Resources(models, {"manual": Shelf()}, savings=savings or Savings())
    return Runner([compile_pipeline(made)], resources)


def asks(made, run_id: str = "run-1", tenant: str = "acme", timeout_s: float = 60, **fields):
    """`fields` are of the request, or inputs."""
    inputs = {name: fields.pop(name, given) for name, given in INPUTS.items()}
    return request(made, timeout_s, run_id=run_id, tenant=tenant, inputs=inputs, **fields)


def ended(events) -> NodeFinished:
    return next(event for event in events if isinstance(event, NodeFinished) and event.node == "x")


async def until(holds) -> None:
    while not holds():
        await asyncio.sleep(0.001)


def asked(made, run_id: str):
    """A run of a pipeline of any inputs."""
    inputs = {name: value for name, value in INPUTS.items() if name in made.inputs}
    return request(made, 60, run_id=run_id, tenant="acme", inputs=inputs)


async def cancelling(ours: Runner, turn: int, chance: random.Random) -> None:
    """Cancels a run after a few turns of the loop."""
    for _ in range(chance.randrange(12)):
        await asyncio.sleep(0)
    ours.cancel("acme", f"{turn}-{chance.randrange(4)}")


def sorted_json(outputs) -> bytes:
    return msgspec.json.encode(outputs, order="sorted")
