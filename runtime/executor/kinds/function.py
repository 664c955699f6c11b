"""`function`: the function is awaited, or called on the spot, in a thread, in a process of its own, or for
several calls at once. What a generator yields is handed on at once."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack, aclosing, closing, contextmanager, suppress
from functools import partial
from typing import Any

from cluster.errors import ReplicaLost
from cluster.stages import Source, Stage, StageChain, StageFailed
from graphs.functions import VALUE, Signature, find, signature_of
from graphs.hints import type_of_hint
from graphs.nodes.function import Function
from runtime.errors import NodeError
from runtime.executor.kinds.batched import in_batches
from runtime.executor.kinds.hinted import Outputs, argument, calling, converted
from runtime.executor.kinds.kind import Evaluate, NodeCall, Perform, Resources, Values
from runtime.executor.streams import Reader, Stream

MAX_YIELDED = 10_000
"""Items of one generator."""
_END: Any = object()


def prepare(spec: Function, resources: Resources) -> Perform:
    """Raises `graphs.functions.FunctionRefused` for a function that is not there any more."""
    target = find(spec.call)
    signature = signature_of(target)
    perform = _prepare(spec, resources, target, signature)
    return perform if signature.key is None else _keyed(perform, signature.key)


def takes_key(spec: Function) -> bool:
    """Whether the function wants an idempotency key."""
    return signature_of(find(spec.call)).key is not None


def _prepare(
    spec: Function, resources: Resources, target: Callable[..., Any], signature: Signature
) -> Perform:
    if signature.yields:
        return _yielding(spec, target, signature)
    if signature.mark.batch:
        return in_batches(spec, resources.batches, target, signature)
    if inspect.iscoroutinefunction(target):
        return _awaited(spec, target, signature)
    compute = stage(spec)
    if signature.mark.cheap:
        return _called(compute)
    if spec.num_cpus is None or resources.open_chain is None:
        return _in_thread(compute)
    names = [*spec.inputs(), *([] if signature.key is None else [signature.key])]
    takes = {name: Source(None, name) for name in names}
    chain = resources.open_chain(spec.call, [Stage(partial(stage, spec), takes, spec.num_cpus)])
    return _in_process(chain, _in_thread(compute), repeatable=spec.effects != "effectful")


def _keyed(perform: Perform, name: str) -> Perform:
    async def with_key(call: NodeCall, inputs: Values) -> Values:
        return await perform(call, {**inputs, name: call.idempotency_key})

    return with_key


def stage(spec: Function) -> Evaluate:
    """The function as it is called where it may hold things up: in a thread or a process of its own."""
    target = find(spec.call)
    signature = signature_of(target)
    give = Outputs(spec, in_fields=signature.in_fields)

    def compute(inputs: Values) -> Values:
        given = {name: argument(name, value, signature) for name, value in inputs.items()}
        with calling(spec):
            result = target(**given)
        return give(result)

    return compute


def _awaited(spec: Function, target: Callable[..., Awaitable[Any]], signature: Signature) -> Perform:
    give = Outputs(spec, in_fields=signature.in_fields)

    async def perform(_call: NodeCall, inputs: Values) -> Values:
        with _read(inputs, signature) as given, calling(spec):
            result = await target(**given)
        return give(result)

    return perform


def _yielding(spec: Function, target: Callable[..., Any], signature: Signature) -> Perform:
    """A generator: what it yields is handed on at once, and collected."""
    give = Outputs(spec, in_fields=False, of_each=True)
    waits = inspect.isasyncgenfunction(target)

    async def perform(call: NodeCall, inputs: Values) -> Values:
        made: list[Any] = []
        with _read(inputs, signature) as given, calling(spec):
            source = target(**given) if waits else _one_by_one(target(**given), cheap=signature.mark.cheap)
            async with aclosing(source) as items:
                async for item in items:
                    if len(made) == MAX_YIELDED:
                        raise NodeError(f"{spec.call} yields more than {MAX_YIELDED} items")
                    made.append(give(item)[VALUE])
                    await call.put(VALUE, made[-1])
        return {VALUE: made}

    return perform


async def _one_by_one(source: Generator[Any], *, cheap: bool) -> AsyncGenerator[Any]:
    """What a generator yields, each made in a thread where it is not cheap."""
    try:
        while (
            item := next(source, _END) if cheap else await asyncio.to_thread(next, source, _END)
        ) is not _END:
            yield item
    finally:
        with suppress(ValueError):  # a thread that nobody waits for any more is still in it
            source.close()


@contextmanager
def _read(inputs: Values, signature: Signature) -> Iterator[dict[str, Any]]:
    """The inputs as the hints say, those that are followed as iterators."""
    with ExitStack() as readers:
        given: dict[str, Any] = {}
        for name, value in inputs.items():
            if name in signature.followed:
                stream = value if isinstance(value, Stream) else Stream.of(value)
                given[name] = _items(name, readers.enter_context(closing(stream.read())), signature)
            else:
                given[name] = argument(name, value, signature)
        yield given


async def _items(name: str, reader: Reader, signature: Signature) -> AsyncGenerator[Any]:
    hint = signature.followed[name]
    port_type = type_of_hint(hint)
    async for _, item in reader.numbered():
        yield converted(name, item, hint, port_type)


def _called(compute: Evaluate) -> Perform:
    async def perform(_call: NodeCall, inputs: Values) -> Values:
        return compute(inputs)

    return perform


def _in_thread(compute: Evaluate) -> Perform:
    async def perform(_call: NodeCall, inputs: Values) -> Values:
        return await asyncio.to_thread(compute, inputs)

    return perform


def _in_process(chain: StageChain, meanwhile: Perform, *, repeatable: bool) -> Perform:
    """`meanwhile` is what runs it while its process is not there."""

    async def perform(call: NodeCall, inputs: Values) -> Values:
        if not chain.ready:
            return await meanwhile(call, inputs)
        try:
            (made,) = await chain.run(inputs)
        except StageFailed as failed:
            raise failed.error from None
        except ReplicaLost:
            if not repeatable:
                raise
            return await meanwhile(call, inputs)
        return made.outputs

    return perform
