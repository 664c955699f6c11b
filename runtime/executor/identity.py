"""What a node does, and what it is asked, as digests: equal ones are answered equally.

    identity    settings, nodes inside, code of functions, versions of models and indexes     once, for a plan
    question    identity, inputs, what its bodies take from around it                         for each call

Neither the names of nodes nor what the inputs were made by counts: only values do. So nodes of different
graphs that do the same find each other.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from graphs.functions import find
from graphs.nodes.function import Function
from graphs.nodes.registry import AnySpec
from runtime.executor.kinds.kind import Resources, Values
from runtime.executor.slots import ABSENT
from runtime.plan import PlannedBody, PlannedNode
from runtime.values import larger_than

MAX_QUESTION_BYTES = 1024 * 1024
"""Size of inputs up to which a call is compared with others."""

_ABSENT = msgspec.msgpack.Ext(0, b"")
_encode = msgspec.msgpack.Encoder(order="sorted").encode


def identity_of(node: PlannedNode, resources: Resources) -> bytes:
    """16 bytes."""
    return _digest(_encode(_does(node, resources)))


def question_of(identity: bytes, inputs: Values, around: Sequence[Any]) -> str | None:
    """32 hexadecimal digits; None for inputs that are too large, or no values but streams.

    `around` is what its bodies take from around it.
    """
    if larger_than([inputs, *around], MAX_QUESTION_BYTES):
        return None
    taken = [_ABSENT if value is ABSENT else value for value in around]
    try:
        asked = _encode([inputs, taken])
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return _digest(identity + asked).hex()


def _does(node: PlannedNode, resources: Resources) -> list[Any]:
    bodies = {key: _inside(body, resources) for key, body in node.bodies.items()}
    return [_spec(node.spec), list(_versions(node.spec, resources)), bodies]


def _spec(spec: AnySpec) -> list[Any]:
    fields: Mapping[str, Any] = msgspec.to_builtins(spec)
    return [spec.kind(), fields, _code(spec.call) if isinstance(spec, Function) else None]


def _inside(body: PlannedBody, resources: Resources) -> list[Any]:
    """The nodes by their names, as they refer to each other by these; constants among their inputs."""
    nodes = [
        [node.name, node.inputs, node.when, node.fallback, _does(node, resources)]
        for step in body.steps
        for node in step.nodes
    ]
    return [sorted(nodes, key=lambda each: str(each[0])), body.outputs, body.when, body.until, body.defaults]


def _versions(spec: AnySpec, resources: Resources) -> Iterator[str]:
    for use in spec.uses():
        if use.resource == "model" and use.name in resources.pools:
            yield resources.pools[use.name].info.version
        elif use.resource == "index" and use.name in resources.indexes:
            yield resources.indexes[use.name].version


@cache
def _code(name: str) -> str:
    """Of the module that a function is in, as it was first read. What it calls elsewhere does not count."""
    target = find(name)
    file = inspect.getsourcefile(target)
    source = Path(file).read_bytes() if file is not None and Path(file).is_file() else target.__code__.co_code
    return _digest(source).hex()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
