"""`function`: the function is awaited, or called in a thread, or on the spot where it is cheap."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from cluster.errors import ClusterError
from graphs.documents import Document
from graphs.functions import VALUE, Signature, find, is_named_tuple, signature_of
from graphs.nodes.function import Function
from graphs.ports import INTEGER, type_schema
from runtime.errors import NodeError
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values
from runtime.values import value_fault

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 200


def prepare(spec: Function, _resources: Resources) -> Perform:
    """Raises `graphs.functions.FunctionRefused` for a function that is not there any more."""
    target = find(spec.call)
    signature = signature_of(target)
    run = _runner(target, cheap=signature.mark.cheap)
    give = _Outputs(spec, in_fields=signature.in_fields)

    async def perform(call: NodeCall, inputs: Values) -> Values:
        given = {name: _given(name, value, signature) for name, value in inputs.items()}
        try:
            result = await run(given)
        except ClusterError:
            raise
        except (Exception, SystemExit) as error:
            logger.exception("%s of %s failed", spec.call, call.request_id)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise NodeError(f"{spec.call} failed: {reason[:MAX_MESSAGE_CHARS]}") from error
        return give(result)

    return perform


def _runner(target: Callable[..., Any], *, cheap: bool) -> Callable[[Mapping[str, Any]], Awaitable[Any]]:
    """How it is called, whatever it raises."""

    def attempt(given: Mapping[str, Any]) -> tuple[Any, BaseException | None]:
        # As a value: some exceptions cannot cross a future.
        try:
            return target(**given), None
        except (Exception, SystemExit) as error:  # noqa: BLE001  (raised by the caller)
            return None, error

    async def run(given: Mapping[str, Any]) -> Any:
        if inspect.iscoroutinefunction(target):
            return await target(**given)
        result, error = attempt(given) if cheap else await asyncio.to_thread(attempt, given)
        if error is not None:
            raise error
        return result

    return run


def _given(name: str, value: Any, signature: Signature) -> Any:
    """An input as its hint says: objects as structs where the function wants them so."""
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
