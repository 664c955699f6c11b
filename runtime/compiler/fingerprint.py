"""Digests that say what a node computes, and a hash that says what a plan does, whatever things are called.

    a ─► b ─┐        digest(b) covers b's spec and digest(a); so b = c exactly when they compute the same
    a ─► c ─┴► d     thing. The hash of the plan numbers the nodes as they are met on the way from the
                     outputs back, so it also tells two uses of one node from one use each of two.

The digests are a Merkle tree over the graph. They alone cannot tell a sampling node used twice from two that
sample for themselves, hence the numbering.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from graphs.bindings import Binding, Items, Literal, Record, Ref, references
from graphs.conditions import Condition, operands_of
from graphs.nodes.registry import AnySpec


class Defined(NamedTuple):
    """A node, as far as it decides what a run does."""

    spec: AnySpec
    inputs: Mapping[str, Binding]
    after: tuple[str, ...] = ()
    """In an order that does not depend on names."""
    when: Condition | None = None


_encode = msgspec.json.Encoder(order="sorted").encode


def digest_of(
    spec: AnySpec,
    inputs: Mapping[str, Binding],
    digests: Mapping[str, str],
    when: Condition | None = None,
) -> str:
    """The digest of a node, from those of the nodes it refers to."""

    def rename(owner: str) -> str:
        return digests.get(owner, owner)

    return fingerprint([_spec(spec), _inputs(inputs, rename), _condition(when, rename)])


def number(outputs: Mapping[str, Binding], nodes: Mapping[str, Defined]) -> dict[str, int]:
    """The nodes in the order in which they are met from the outputs back, whatever their names."""
    numbers: dict[str, int] = {}
    stack = [ref.owner for name in sorted(outputs, reverse=True) for ref in _reversed(outputs[name])]
    while stack:
        node_id = stack.pop()
        if node_id in numbers or node_id not in nodes:
            continue
        numbers[node_id] = len(numbers)
        node = nodes[node_id]
        stack += reversed(node.after)
        for binding in reversed(list(operands_of(node.when))):
            stack += [ref.owner for ref in _reversed(binding)]
        for port in sorted(node.inputs, reverse=True):
            stack += [ref.owner for ref in _reversed(node.inputs[port])]
    return numbers


def structure(
    outputs: Mapping[str, Binding],
    nodes: Mapping[str, Defined],
    numbers: Mapping[str, int],
) -> list[Any]:
    """The nodes by number and the outputs, in a form that is equal for equal graphs."""

    def rename(owner: str) -> Any:
        return numbers.get(owner, owner)

    ordered = sorted(numbers, key=lambda node_id: numbers[node_id])
    return [
        [_structure(nodes[node_id], rename) for node_id in ordered],
        _inputs(outputs, rename),
    ]


def _structure(node: Defined, rename: Callable[[str], Any]) -> list[Any]:
    return [
        _spec(node.spec),
        _inputs(node.inputs, rename),
        sorted(map(rename, node.after)),
        _condition(node.when, rename),
    ]


def fingerprint(content: Any) -> str:
    """32 hexadecimal digits."""
    return hashlib.blake2b(_encode(content), digest_size=16).hexdigest()


def _spec(spec: AnySpec) -> Any:
    return msgspec.to_builtins(spec)


def _inputs(inputs: Mapping[str, Binding], rename: Callable[[str], Any]) -> dict[str, Any]:
    return {port: _canonical(binding, rename) for port, binding in inputs.items()}


def _condition(when: Condition | None, rename: Callable[[str], Any]) -> Any:
    if when is None:
        return None
    return [
        when.text,
        *([_canonical(operand.binding, rename), operand.cast] for operand in when.operands),
    ]


def _canonical(binding: Binding, rename: Callable[[str], Any]) -> Any:
    match binding:
        case Literal(value=value):
            return ["literal", value]
        case Ref(owner=owner, port=port):
            return ["ref", rename(owner), port]
        case Items(items=items):
            return ["items", [_canonical(item, rename) for item in items]]
        case Record(fields=fields):
            return ["record", {name: _canonical(item, rename) for name, item in fields.items()}]


def _reversed(binding: Binding) -> Iterable[Ref]:
    """The references of a binding, last first, the fields of records by name."""
    match binding:
        case Items(items=items):
            for item in reversed(items):
                yield from _reversed(item)
        case Record(fields=fields):
            for name in sorted(fields, reverse=True):
                yield from _reversed(fields[name])
        case _:
            yield from references(binding)
