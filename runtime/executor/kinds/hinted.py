"""Values as the hints of a function say: what it is given, and what is made of what it returned or raised."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from jsonschema import Draft202012Validator

from cluster.errors import ClusterError
from graphs.documents import Document
from graphs.functions import VALUE, Signature, is_named_tuple
from graphs.nodes.function import Function
from graphs.ports import INTEGER, PortType, type_schema
from runtime.errors import NodeError
from runtime.executor.kinds.kind import Values
from runtime.values import value_fault

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 200


def failed(spec: Function, error: BaseException) -> NodeError:
    """What is told of what a function raised. The traceback goes to the log."""
    logger.error("%s failed", spec.call, exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return NodeError(f"{spec.call} failed: {reason[:MAX_MESSAGE_CHARS]}")


@contextmanager
def calling(spec: Function) -> Iterator[None]:
    """Around a call of the function: what it raises becomes a `NodeError`, but for what is one of ours."""
    try:
        yield
    except ClusterError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(spec, error) from error


def argument(name: str, value: Any, signature: Signature) -> Any:
    """An input as its hint says. An idempotency key is none, and as it should be."""
    if name == signature.key:
        return value
    return converted(name, value, signature.hints[name], signature.inputs[name].type)


def converted(name: str, value: Any, hint: Any, port_type: PortType) -> Any:
    """A value as a hint says: objects as structs where the function wants them so."""
    if isinstance(value, float) and value.is_integer() and port_type == INTEGER:
        value = int(value)  # JSON Schema takes 3.0 for an integer
    with suppress(msgspec.ValidationError):
        return msgspec.convert(value, hint)
    try:
        return msgspec.convert(msgspec.to_builtins(value), hint)
    except msgspec.ValidationError as error:
        raise NodeError(f"the input {name} does not fit: {error}", param=name) from error


class Outputs:
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
