"""`function`: the function is awaited, or called on the spot, in a thread, or in a process of its own."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from cluster.errors import ClusterError, ReplicaLost
from cluster.stages import Source, Stage, StageChain, StageFailed
from graphs.documents import Document
from graphs.functions import VALUE, Signature, find, is_named_tuple, signature_of
from graphs.nodes.function import Function
from graphs.ports import INTEGER, type_schema
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Evaluate, NodeCall, Perform, Resources, Values
from runtime.values import value_fault

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 200


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
    compute = stage(spec)
    if inspect.iscoroutinefunction(target):
        return _awaited(spec, target)
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


def _awaited(spec: Function, target: Callable[..., Awaitable[Any]]) -> Perform:
    signature = signature_of(target)
    give = _Outputs(spec, in_fields=signature.in_fields)

    async def perform(_call: NodeCall, inputs: Values) -> Values:
        given = {name: _given(name, value, signature) for name, value in inputs.items()}
        try:
            result = await target(**given)
        except ClusterError:
            raise
        except (Exception, SystemExit) as error:
            raise _failed(spec, error) from error
        return give(result)

    return perform


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
    """An input as its hint says: objects as structs where the function wants them so."""
    if name == signature.key:
        return value
    if isinstance(value, float) and value.is_integer() and signature.inputs[name].type == INTEGER:
        value = int(value)  # JSON Schema takes 3.0 for an integer
    with suppress(msgspec.ValidationError):
        return msgspec.convert(value, signature.hints[name])
    try:
        return msgspec.convert(msgspec.to_builtins(value), signature.hints[name])
    except msgspec.ValidationError as error:
        raise NodeError(f"the input {name} does not fit: {error}", param=name) from error


class _Outputs:
    """What is made of what a function returned."""

    def __init__(self, spec: Function, *, in_fields: bool) -> None:
        self._name = spec.call
        self._in_fields = in_fields
        self._validators = {
            name: Draft202012Validator(type_schema(port_type)) for name, port_type in spec.gives.items()
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
