"""Pipelines that come with a call: read, checked and compiled as those of the deploy config are.

    text or object ─► size ─► the loader ─► what the key may use ─► compiler ─► plan, kept for next time

They come from strangers. So they are small (`MAX_BYTES`, `MAX_NODES`, `MAX_TOKENS`, `MAX_VISITS`), compiled
in a thread of their own, in bounded time and number, and reach out of the graph only where the key may have
them do so: functions, web servers with their secrets, MCP servers and prompt files are there for graphs that
the deployment's owner has read. Graphs that are deployed can be used as subgraphs, and keep their own rights.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from cluster.errors import Overloaded
from graphs.errors import Path, PipelineError, Problem, nearest
from graphs.known import Known
from graphs.loader import load_tree
from graphs.nodes.function import Function
from graphs.nodes.spec import Use
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Node, NodeId, Pipeline
from graphs.prompts import Prompts
from graphs.yaml_tree import read
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline
from runtime.plan import ExecutionStep, encode_plan
from runtime.runner import GraphInfo, info_of
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.errors import InvalidPipeline
from serve_apps.gateway.rights import GRAPH_PREFIX, INDEX_PREFIX, inline_name, may_use

MAX_BYTES = 64 * 1024
"""Of the text of a pipeline, or of its object as JSON. The worst of that size compile in about a third of a
second."""
MAX_NODES = 200
"""Those inside nodes included, and those of subgraphs."""
MAX_TOKENS = 10_000_000
"""That one run may use, as the nodes are bounded."""
MAX_VISITS = 10_000
"""Runs of one node in one run, as the maps, loops and agents around it are bounded."""
COMPILE_S = 5.0
"""How long a pipeline may take to be read and compiled."""
MAX_AT_ONCE = 16
"""Pipelines that are compiled, or wait to be, in one gateway."""
KEPT = 128
KEPT_BYTES = 32 * 2**20
"""Plans kept, and their sizes together."""
MAX_SHOWN = 3
"""Problems that the message of a refusal tells of; all are in its list."""


@dataclass(frozen=True)
class Deployed:
    """What pipelines may name."""

    catalog: Catalog
    known: Known = field(default_factory=Known)
    """The graphs, by name, the prompt files, and the modules whose functions may be named."""


class Inline(NamedTuple):
    """A pipeline that can be run."""

    info: GraphInfo
    """Its name says that it is not one of those deployed."""
    plan: bytes
    """Packed."""


class InlinePipelines:
    """Compiles what comes, once for each key's rights."""

    def __init__(self, deployed: Deployed, *, compile_s: float = COMPILE_S) -> None:
        """`compile_s`: seconds that one may take."""
        self._deployed = deployed
        self._compile_s = compile_s
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inline-pipelines")
        self._at_work = 0
        self._kept: OrderedDict[bytes, Inline] = OrderedDict()
        self._kept_bytes = 0

    async def compiled(self, caller: Caller, pipeline: str | Mapping[str, Any]) -> Inline:
        """The pipeline, ready to be run for this key. Raises `InvalidPipeline`, `Overloaded`."""
        is_text = isinstance(pipeline, str)
        text = pipeline if isinstance(pipeline, str) else msgspec.json.encode(pipeline).decode()
        only = None if caller.models is None else caller.id
        rights = [caller.tenant, caller.functions, caller.models, only]
        digest = blake2b(msgspec.msgpack.encode([rights, is_text, text])).digest()
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
            return found
        try:
            made = await self._in_thread(caller, text)
        except PipelineError as error:
            raise _refusal(error.problems, placed=is_text) from error
        self._keep(digest, made)
        return made

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, caller: Caller, text: str) -> Inline:
        if self._at_work >= MAX_AT_ONCE:
            raise Overloaded("too many pipelines are being compiled", retry_after_s=1.0)
        self._at_work += 1
        work = self._threads.submit(compile_inline, self._deployed, caller, text)
        loop = asyncio.get_running_loop()
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._end))
        try:
            async with asyncio.timeout(self._compile_s):
                return await asyncio.wrap_future(work)
        except TimeoutError:
            if work.cancelled():
                raise Overloaded("too many pipelines are being compiled", retry_after_s=1.0) from None
            seconds = f"{self._compile_s:g} s"
            raise PipelineError(
                [Problem("too-large", f"it takes longer than {seconds} to compile")]
            ) from None

    def _end(self) -> None:
        self._at_work -= 1

    def _keep(self, digest: bytes, made: Inline) -> None:
        self._kept[digest] = made
        self._kept_bytes += len(made.plan)
        while len(self._kept) > KEPT or self._kept_bytes > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.plan)


def compile_inline(deployed: Deployed, caller: Caller, text: str) -> Inline:
    """The plan of a pipeline for a key. Raises `PipelineError` with all that is wrong with it."""
    if len(text.encode()) > MAX_BYTES:
        raise PipelineError([Problem("too-large", f"a pipeline has at most {MAX_BYTES // 1024} KiB here")])
    tree = read(text)
    if sum(_written(tree.data)) > MAX_NODES:
        raise PipelineError([_too_many()])
    loaded = load_tree(tree, "<pipeline>", known_to(deployed.known, caller))
    rights = _Rights(deployed, caller)
    problems = [*rights.problems(loaded.pipeline.nodes, ("nodes",)), *_limits(loaded.pipeline)]
    if problems:
        raise PipelineError([loaded.place(problem) for problem in problems])
    try:
        plan = compile_pipeline(loaded.pipeline, deployed.catalog)
    except PipelineError as error:
        raise PipelineError([loaded.place(problem) for problem in error.problems]) from error
    if plan.token_bound > MAX_TOKENS:
        hint = "lower max_tokens, max_prompt_tokens, or how often nodes run"
        message = f"one run could use {plan.token_bound} tokens, more than {MAX_TOKENS}"
        raise PipelineError([loaded.place(Problem("too-large", message, ("nodes",), hint=hint))])
    plan = replace(plan, graph=inline_name(caller, plan.graph))
    return Inline(info_of(plan), encode_plan(plan))


def reaches_out(steps: Iterable[ExecutionStep]) -> bool:
    """Whether a run of these steps may do what a key needs a permission for, of its own or in a subgraph."""
    nodes = [node for step in steps for node in step.nodes]
    return any(
        isinstance(node.spec, Function)
        or any(use.resource in _OUTSIDE for use in node.spec.uses())
        or any(reaches_out(body.steps) for body in node.bodies.values())
        for node in nodes
    )


def known_to(known: Known, caller: Caller) -> Known:
    """What a pipeline of this key may use of other files: nothing that it would first have to load."""
    graphs = {name: each for name, each in known.graphs.items() if may_use(caller, GRAPH_PREFIX + name)}
    refused = {name: why for name, why in known.refused.items() if may_use(caller, GRAPH_PREFIX + name)}
    if not caller.functions:
        return Known(graphs, Prompts(), refused, modules=())
    return replace_fields(known, graphs=graphs, refused=refused, modules=known.modules or ())


def _written(data: Any) -> Iterator[int]:
    """How many nodes are written under each `nodes`, at any depth."""
    stack = [data]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            nodes = item.get("nodes")
            if isinstance(nodes, dict):
                yield len(nodes)
            stack += item.values()
        elif isinstance(item, list):
            stack += item


def _too_many() -> Problem:
    return Problem("too-large", f"more than {MAX_NODES} nodes, those inside nodes included", ("nodes",))


def _limits(pipeline: Pipeline) -> Iterator[Problem]:
    if sum(1 for _ in _visits(pipeline.nodes, ("nodes",), 1)) > MAX_NODES:
        yield _too_many()
        return
    for path, visits in _visits(pipeline.nodes, ("nodes",), 1):
        if visits > MAX_VISITS:
            hint = "lower max_items, max_iterations or max_steps around it"
            message = f"it could run {visits} times in one run, more than {MAX_VISITS}"
            yield Problem("too-large", message, path, on_key=True, hint=hint)


def _visits(nodes: Mapping[NodeId, Node], path: Path, visits: int) -> Iterator[tuple[Path, int]]:
    """Every node, and how often it could run in one run."""
    for name, node in nodes.items():
        yield (*path, name), visits
        for key, body in node.bodies.items():
            place = (*path, name, *node.spec.place(key), "nodes")
            yield from _visits(body.nodes, place, visits * node.spec.most_visits)


class _Rights:
    """What the nodes of a pipeline may use for a key."""

    def __init__(self, deployed: Deployed, caller: Caller) -> None:
        catalog = deployed.catalog
        self._functions = caller.functions
        self._models = [name for name in catalog.models if may_use(caller, name)]
        self._indexes = [name for name in catalog.indexes if may_use(caller, INDEX_PREFIX + name)]

    def problems(self, nodes: Mapping[NodeId, Node], path: Path) -> Iterator[Problem]:
        """Of the nodes that the author has written: not of those of deployed graphs, which have their own."""
        for name, node in nodes.items():
            place = (*path, name)
            if isinstance(node.spec, Subgraph):
                continue
            if isinstance(node.spec, Function) and not self._functions:
                yield _forbidden("functions", place)
            for use in node.spec.uses():
                yield from self._use(use, (*place, node.spec.kind(), use.field))
            for number, fallback in enumerate(node.fallback):
                if fallback.model is not None:
                    use = Use("model", fallback.model, "model")
                    yield from self._use(use, (*place, "fallback", number, "model"))
            for key, body in node.bodies.items():
                yield from self.problems(body.nodes, (*place, *node.spec.place(key), "nodes"))

    def _use(self, use: Use, path: Path) -> Iterator[Problem]:
        if use.resource == "model":
            yield from _absent(use, self._models, path)
        elif use.resource == "index":
            yield from _absent(use, self._indexes, path)
        elif not self._functions:
            yield _forbidden(_OUTSIDE[use.resource], path)


_OUTSIDE = {"host": "web servers", "secret": "secrets", "server": "MCP servers"}


def _absent(use: Use, known: Collection[str], path: Path) -> Iterator[Problem]:
    if use.name not in known:
        message = f"there is no {use.resource} {use.name} that this API key may use"
        yield Problem(f"unknown-{use.resource}", message, path, hint=nearest(use.name, known))


def _forbidden(what: str, path: Path) -> Problem:
    hint = "a key made with --functions may; or have the graph deployed"
    return Problem("not-allowed", f"this API key's own pipelines may not use {what}", path, hint=hint)


def _refusal(problems: Collection[Problem], *, placed: bool) -> InvalidPipeline:
    """The problems for a client; of an object, which has no lines, without them."""
    listed = [
        replace(problem, file=None, position=problem.position if placed else None) for problem in problems
    ]
    errors = [problem for problem in listed if problem.severity == "error"]
    told = "; ".join(_sentence(problem) for problem in errors[:MAX_SHOWN])
    more = f"; and {len(errors) - MAX_SHOWN} more" if len(errors) > MAX_SHOWN else ""
    return InvalidPipeline(
        f"The pipeline cannot be run: {told[:2_000]}{more}.", [msgspec.to_builtins(each) for each in listed]
    )


def _sentence(problem: Problem) -> str:
    place = ".".join(map(str, problem.path))
    if problem.position is not None:
        place = f"line {problem.position.line}, column {problem.position.column}"
    return (f"{place}: " if place else "") + problem.message + (f" ({problem.hint})" if problem.hint else "")
