"""The door of the runtime: what a gateway asks of a runner, and what it may know of a graph beforehand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from time import perf_counter
from typing import Any, Protocol

import msgspec
from jsonschema import Draft202012Validator

from cluster.errors import ClusterError, DeadlineExceeded
from cluster.messages import Usage
from graphs.bindings import CONTEXT, INPUTS, Ref
from graphs.pipeline import Durability, Priority
from graphs.ports import Port, object_schema
from runtime.errors import InputProblem, InvalidInputs, RunCancelled, RunError, UnknownGraph
from runtime.events import RunEvent, RunFailed, RunFinished, RunStarted
from runtime.executor.kinds.kind import Resources
from runtime.executor.loop import execute
from runtime.executor.prepare import PreparedBody, prepare
from runtime.executor.queue import EventQueue, Watch
from runtime.executor.run import NodeBroke, Run, RunScope
from runtime.plan import ExecutionPlan
from runtime.request import RunRequest

logger = logging.getLogger(__name__)

MAX_PROBLEMS = 20
"""Fields at fault that one refusal names."""
MAX_PROBLEM_CHARS = 200
MAX_NAME_CHARS = 64
PRIORITIES: Mapping[Priority, int] = {"high": -10_000, "normal": 0, "low": 10_000}
"""Of a graph's policy, in the engines' scale; further apart than any slack within a run."""


class ChatBinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a graph is talked to as if it were a chat model."""

    input: str
    """Takes the text of the user's message."""
    output: str
    """Is the reply."""
    node: str | None = None
    """Whose deltas are the reply, piece by piece; absent when the reply comes in one piece."""


class GraphInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a gateway must know of a graph to validate, price and present it."""

    name: str
    version: str
    description: str
    inputs: dict[str, Any]
    """JSON Schema of the object of inputs: what `validate_inputs` takes."""
    outputs: dict[str, Any]
    """JSON Schema of the object of outputs."""
    plan_hash: str
    token_bound: int
    """Most tokens, of prompts and outputs together, that one run can use: to be reserved before it starts."""
    models: list[str]
    """Names of the pools that it calls."""
    reads_history: bool
    chat: ChatBinding | None = None
    durability: Durability = "none"
    """Of runs whose caller does not say."""


decode_infos = msgspec.msgpack.Decoder(list[GraphInfo]).decode


class Witness(Protocol):
    """Sees runs from within: every event when it happens, whether or not anybody reads it."""

    def watch(self, request: RunRequest) -> Watch:
        """What is told the events of a run that begins."""
        ...


class _Driven:
    """A run that goes on."""

    __slots__ = ("cancelled", "limit", "tenant")

    def __init__(self, tenant: str, deadline: float) -> None:
        self.tenant = tenant
        self.limit = asyncio.timeout(deadline - time.time())
        """Ends it, whether its time is over or somebody cancels it."""
        self.cancelled = False


class Runner:
    """Runs compiled plans. Needs an event loop and nothing else: no Ray, no server.

    Raises `KeyError`, when it is made, for a plan whose models or indexes are not all there.
    """

    def __init__(
        self,
        plans: Iterable[ExecutionPlan],
        resources: Resources,
        witness: Witness | None = None,
    ) -> None:
        self._plans = {plan.graph: (plan, prepare(plan, resources)) for plan in plans}
        self.infos = {name: info_of(plan) for name, (plan, _) in self._plans.items()}
        """By the name of the graph."""
        self._witness = witness
        self._driven: dict[str, _Driven] = {}
        """By run id."""

    @property
    def running(self) -> list[tuple[str, str]]:
        """Tenant and id of every run that goes on."""
        return [(run.tenant, run_id) for run_id, run in self._driven.items()]

    def cancel(self, tenant: str, run_id: str) -> bool:
        """Ends a run of the tenant with a `RunFailed` whose failure is `RunCancelled`, and aborts its calls.

        Whether it was there to be ended.
        """
        run = self._driven.get(run_id)
        if run is None or run.tenant != tenant or run.cancelled or run.limit.expired():
            return False
        run.cancelled = True
        run.limit.reschedule(asyncio.get_running_loop().time())
        return True

    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        """The events of the run, exactly one `RunFinished` or `RunFailed` at the end. Never raises for a
        run that fails.

        Closing it cancels every node that runs, and aborts their calls in the engines.
        """
        queue = EventQueue(watch=self._witness.watch(request) if self._witness is not None else None)
        driver = asyncio.create_task(self._drive(request, queue))
        try:
            while True:
                for event in await queue.take():
                    yield event
                    if isinstance(event, RunFinished | RunFailed):
                        return
        finally:
            driver.cancel()
            await asyncio.wait([driver])

    async def _drive(self, request: RunRequest, queue: EventQueue) -> None:
        """Puts every event of the run, and at the end the last one, whatever happens."""
        began = perf_counter()
        try:
            plan, prepared = self._find(request.graph)
            inputs = validate_inputs(self.infos[request.graph].inputs, request.inputs)
        except ClusterError as error:
            queue.put(RunFailed(error.as_failure(), Usage(), perf_counter() - began))
            return
        queue.put(RunStarted(request.run_id, plan.graph, plan.version, plan.hash))
        scope = _scope(request, plan)
        run = Run(scope, queue)
        given = {Ref(INPUTS, name): value for name, value in inputs.items()}
        given[Ref(CONTEXT, "sessionHistory")] = request.history

        def failed(error: ClusterError, node: str | None) -> RunFailed:
            return RunFailed(error.as_failure(), run.usage, perf_counter() - began, node)

        driven = self._driven[request.run_id] = _Driven(request.tenant, scope.deadline)
        try:
            async with driven.limit:
                outputs = await execute(prepared, run, given)
            last: RunEvent = RunFinished(msgspec.to_builtins(outputs), run.usage, perf_counter() - began)
        except NodeBroke as broke:
            last = failed(broke.error, broke.node)
        except TimeoutError:
            last = failed(_ended_early(driven, run), next(iter(run.at_work()), None))
        except asyncio.CancelledError:
            queue.put(failed(RunCancelled("whoever read the run has left"), None))
            raise
        except Exception:
            logger.exception("run %s of %s broke", request.run_id, request.graph)
            ours = RunError("the run broke for a reason of our own")
            last = failed(ours, next(iter(run.at_work()), None))
        finally:
            self._driven.pop(request.run_id, None)
        queue.put(last)

    def _find(self, graph: str) -> tuple[ExecutionPlan, PreparedBody]:
        if graph not in self._plans:
            raise UnknownGraph(f"there is no graph {graph[:MAX_NAME_CHARS]}", param="graph")
        return self._plans[graph]


def info_of(plan: ExecutionPlan) -> GraphInfo:
    """What a gateway must know of a plan."""
    outputs = {name: Port(port_type) for name, port_type in plan.output_types.items()}
    chat = plan.chat
    return GraphInfo(
        name=plan.graph,
        version=plan.version,
        description=plan.description,
        inputs=object_schema(plan.inputs),
        outputs=object_schema(outputs),
        plan_hash=plan.hash,
        token_bound=plan.token_bound,
        models=list(plan.models),
        reads_history="sessionHistory" in plan.reads,
        chat=None if chat is None else ChatBinding(chat.input, chat.output, chat.node),
        durability=plan.policies.durability,
    )


def validate_inputs(schema: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with the defaults of `schema` (a `GraphInfo.inputs`) filled in.

    Raises `InvalidInputs`, which names every field at fault.
    """
    ports: dict[str, Any] = schema["properties"]
    problems = [InputProblem(name, "is required") for name in schema["required"] if name not in inputs]
    for name, value in islice(inputs.items(), MAX_PROBLEMS + len(ports)):
        if name in ports:
            problems += _problems_of(name, ports[name], value)
        else:
            problems.append(InputProblem(name[:MAX_NAME_CHARS], _unknown(name, ports)))
    if problems:
        raise InvalidInputs(problems[:MAX_PROBLEMS])
    defaults = {name: port["default"] for name, port in ports.items() if "default" in port}
    return defaults | dict(inputs)


def _problems_of(name: str, schema: Mapping[str, Any], value: object) -> Iterator[InputProblem]:
    for error in islice(Draft202012Validator(schema).iter_errors(value), MAX_PROBLEMS):
        field = ".".join([name, *(str(part) for part in error.absolute_path)])
        yield InputProblem(field, error.message[:MAX_PROBLEM_CHARS])


def _unknown(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name[:MAX_NAME_CHARS], known, n=1)
    return "is not an input of this graph" + (f"; did you mean {near[0]}?" if near else "")


def _scope(request: RunRequest, plan: ExecutionPlan) -> RunScope:
    """The request, within the policies of the plan."""
    policies = plan.policies
    deadline = request.deadline
    if policies.deadline_s is not None:
        deadline = min(deadline, time.time() + policies.deadline_s)
    priority = request.priority + PRIORITIES[policies.priority]
    return RunScope(request.run_id, deadline, request.tenant, priority, request.stream, plan.graph)


def _ended_early(driven: _Driven, run: Run) -> ClusterError:
    running = _at_work(run)
    if driven.cancelled:
        return RunCancelled(f"the run was cancelled; running: {running}")
    return DeadlineExceeded(f"the run passed its deadline; running: {running}")


def _at_work(run: Run) -> str:
    paths = run.at_work()
    more = f" and {len(paths) - MAX_PROBLEMS} more" if len(paths) > MAX_PROBLEMS else ""
    return (", ".join(paths[:MAX_PROBLEMS]) or "nothing") + more
