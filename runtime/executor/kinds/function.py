"""`function`: the function is awaited, or called on the spot, in a thread, or in a process of its own. What a
generator yields is handed on at once."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, aclosing, closing, contextmanager, suppress
from functools import partial
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from cluster.errors import ClusterError, ReplicaLost
from cluster.stages import Source, Stage, StageChain, StageFailed
from graphs.documents import Document
from graphs.functions import VALUE, Signature, find, is_named_tuple, signature_of
from graphs.hints import type_of_hint
from graphs.nodes.function import Function
from graphs.ports import INTEGER, PortType, type_schema
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Evaluate, NodeCall, Perform, Resources, Values
from runtime.executor.streams import Reader, Stream
from runtime.values import value_fault

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 200
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
    give = _Outputs(spec, in_fields=signature.in_fields)

    def compute(inputs: Values) -> Values:
        given = {name: _given(name, value, signature) for name, value in inputs.items()}
        try:
            result = target(**given)
        except ClusterError:
            raise
        except (Exception, SystemExit) as error:
            raise _failed(spec, error) from error
        return give(result)

    return compute


def _awaited(spec: Function, target: Callable[..., Awaitable[Any]], signature: Signature) -> Perform:
    give = _Outputs(spec, in_fields=signature.in_fields)

    async def perform(_call: NodeCall, inputs: Values) -> Values:
        with _read(inputs, signature) as given:
            try:
                result = await target(**given)
            except ClusterError:
                raise
            except (Exception, SystemExit) as error:
                raise _failed(spec, error) from error
        return give(result)

    return perform


def _yielding(spec: Function, target: Callable[..., Any], signature: Signature) -> Perform:
    """A generator: what it yields is handed on at once, and collected."""
    give = _Outputs(spec, in_fields=False, of_each=True)
    waits = inspect.isasyncgenfunction(target)

    async def perform(call: NodeCall, inputs: Values) -> Values:
        made: list[Any] = []
        with _read(inputs, signature) as given:
            try:
                source = (
                    target(**given) if waits else _one_by_one(target(**given), cheap=signature.mark.cheap)
                )
                async with aclosing(source) as items:
                    async for item in items:
                        if len(made) == MAX_YIELDED:
                            raise NodeError(f"{spec.call} yields more than {MAX_YIELDED} items")
                        made.append(give(item)[VALUE])
                        await call.put(VALUE, made[-1])
            except ClusterError:
                raise
            except (Exception, SystemExit) as error:
                raise _failed(spec, error) from error
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
                given[name] = _given(name, value, signature)
        yield given


async def _items(name: str, reader: Reader, signature: Signature) -> AsyncGenerator[Any]:
    hint = signature.followed[name]
    port_type = type_of_hint(hint)
    async for _, item in reader.numbered():
        yield _converted(name, item, hint, port_type)


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


def _failed(spec: Function, error: BaseException) -> NodeError:
    logger.error("%s failed", spec.call, exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return NodeError(f"{spec.call} failed: {reason[:MAX_MESSAGE_CHARS]}")


def _given(name: str, value: Any, signature: Signature) -> Any:
    """An input as its hint says. An idempotency key is none, and as it should be."""
    if name == signature.key:
        return value
    return _converted(name, value, signature.hints[name], signature.inputs[name].type)


def _converted(name: str, value: Any, hint: Any, port_type: PortType) -> Any:
    """A value as a hint says: objects as structs where the function wants them so."""
    if isinstance(value, float) and value.is_integer() and port_type == INTEGER:
        value = int(value)  # JSON Schema takes 3.0 for an integer
    with suppress(msgspec.ValidationError):
        return msgspec.convert(value, hint)
    try:
        return msgspec.convert(msgspec.to_builtins(value), hint)
    except msgspec.ValidationError as error:
        raise NodeError(f"the input {name} does not fit: {error}", param=name) from error


class _Outputs:
    """What is made of what a function returned."""

    def __init__(self, spec: Function, *, in_fields: bool, of_each: bool = False) -> None:
        """`of_each`: it is given the items of an output, one by one."""
        self._name = spec.call
        self._in_fields = in_fields
        schemas = {name: type_schema(port_type) for name, port_type in spec.gives.items()}
        self._validators = {
            name: Draft202012Validator(schema["items"] if of_each else schema)
            for name, schema in schemas.items()
        }

    def __call__(self, result: Any) -> Values:
        fields = self._fields(result)
        return {name: self._value(name, fields.get(name)) for name in self._validators}

    def _fields(self, result: Any) -> Mapping[str, Any]:
        if not self._in_fields:
            return {VALUE: result}
        fields = result._asdict() if is_named_tuple(type(result)) else result
        if not isinstance(fields, Mapping):
            message = f"{self._name} returned a {type(result).__name__} and not what its hint says"
            raise NodeError(message)
        return fields

    def _value(self, name: str, value: Any) -> Any:
        fault = value_fault(value)
        if fault is None:
            error = next(self._validators[name].iter_errors(msgspec.to_builtins(value)), None)
            fault = None if error is None else error.message[:MAX_MESSAGE_CHARS]
        if fault is not None:
            raise NodeError(f"the output {name} of {self._name} does not fit: {fault}", param=name)
        return _plain(value)


def _plain(value: Any) -> Any:
    """The value as other nodes take it: JSON and documents."""
    match value:
        case Document():
            return value
        case msgspec.Struct():
            return _plain(msgspec.to_builtins(value))
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value
