"""Which pipeline is being written in Python right now: where a call of a kind of node is recorded.

with tracing(scope):
    Embed("minilm")(text=question)       # → scope.record(Embed("minilm"), {"text": question})
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from graphs.nodes.spec import NodeSpec
    from graphs.recording import Step


class Recorder(Protocol):
    """What nodes are recorded in: the pipeline or a body."""

    def record(self, spec: NodeSpec, inputs: Mapping[str, Any]) -> Step:
        """The new node."""
        ...


class Traced:
    """What stands for values while a pipeline is written."""


_active: ContextVar[Recorder | None] = ContextVar("active", default=None)


@contextmanager
def tracing(recorder: Recorder) -> Iterator[None]:
    """Records calls in `recorder` until the end of the block."""
    token = _active.set(recorder)
    try:
        yield
    finally:
        _active.reset(token)


def recorder() -> Recorder:
    """Where calls are recorded. Raises `RuntimeError` where no pipeline is being traced."""
    found = _active.get()
    if found is None:
        raise RuntimeError("nodes are made inside a function that @pipeline traces")
    return found


def holds_traced(value: object) -> bool:
    """Whether it is something that stands for a value, or a list or dictionary with such inside."""
    if isinstance(value, dict):
        return any(map(holds_traced, value.values()))
    return isinstance(value, Traced) or (isinstance(value, list | tuple) and any(map(holds_traced, value)))
