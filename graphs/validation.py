"""Whether a pipeline makes sense: every mistake of it, found in one pass over names, edges, types and shape.

    limits ─► types ─► nodes, bodies inside nodes ─► outputs, chat, context ─► what is unused

Knows nothing of what is deployed: whether a model or an index exists is asked when the pipeline is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import UNSET

from graphs.bindings import INPUTS, Ref
from graphs.checks.limits import limit_problems
from graphs.checks.nodes import node_problems
from graphs.checks.policies import cache_problems
from graphs.checks.scope import Scope, Unreadable
from graphs.errors import Path, Problem, nearest
from graphs.inference import typed
from graphs.pipeline import CONTEXT_FIELDS, Pipeline, name_fault
from graphs.ports import STRING, Port, assignable, constraints_of, faults
from graphs.reading.base import Loose

_ALL_READ: Unreadable = {}


def check(
    pipeline: Pipeline, unreadable: Unreadable = _ALL_READ, loose: Sequence[Loose] = ()
) -> list[Problem]:
    """Every problem, warnings included.

    `unreadable` names what is there but was already complained of; `loose` are the references of nodes that
    could not be read. A pipeline that is too large is not looked at any closer.
    """
    return limit_problems(pipeline) or list(_Checker(pipeline, unreadable, loose).run())


class _Checker:
    def __init__(self, pipeline: Pipeline, unreadable: Unreadable, loose: Sequence[Loose]) -> None:
        self.pipeline = pipeline
        self.unreadable = unreadable.get((), frozenset())
        self.types = typed(pipeline)
        self.scope = Scope(pipeline, pipeline.nodes, self.types, unreadable)
        self._loose = loose

    def run(self) -> Iterator[Problem]:
        yield from self._whole()
        yield from self._inputs()
        yield from node_problems(self.scope, self.pipeline.outputs.values(), self._loose)
        yield from self._outputs()
        yield from self._chat()
        yield from self._context()
        yield from self._unused()

    def _whole(self) -> Iterator[Problem]:
        fault = name_fault(self.pipeline.metadata.name)
        if fault and "metadata" not in self.unreadable:
            yield Problem("bad-name", fault, ("metadata", "name"))
        if not self.pipeline.nodes and not self.unreadable:
            yield Problem("missing", "a pipeline needs nodes", ("nodes",))
        if self.pipeline.policies.cache is not None:
            yield from cache_problems(("policies", "cache"), self.pipeline.policies.cache)

    def _inputs(self) -> Iterator[Problem]:
        for name, port in self.pipeline.inputs.items():
            path: Path = ("inputs", name)
            if fault := name_fault(name):
                yield Problem("bad-name", fault, path, on_key=True)
            for keyword in sorted(set(port.constraints) - constraints_of(port.type)):
                message = f"{keyword} says nothing of a {port.type}"
                yield Problem("unknown-field", message, (*path, keyword), on_key=True)
            for keyword, limit in port.constraints.items():
                if not _fits_keyword(keyword, limit):
                    yield Problem("bad-value", f"{keyword} cannot be {limit!r}", (*path, keyword))
                    break
            else:
                if port.default is not UNSET:
                    for message in faults(port, port.default):
                        yield Problem(
                            "bad-default", f"the default does not fit: {message}", (*path, "default")
                        )

    def _outputs(self) -> Iterator[Problem]:
        if not self.pipeline.outputs and not self.unreadable:
            yield Problem("missing", "a pipeline needs outputs", ("outputs",))
        for name, ref in self.pipeline.outputs.items():
            path: Path = ("outputs", name)
            if fault := name_fault(name):
                yield Problem("bad-name", fault, path, on_key=True)
            yield from self.scope.reference((*path, "from") if name in self.pipeline.defaults else path, ref)
            yield from self._absence(name, ref, path)

    def _absence(self, name: str, ref: Ref, path: Path) -> Iterator[Problem]:
        """Whether an output that may be absent says what it is then, and one that may not says nothing."""
        defaults = self.pipeline.defaults
        if ref in self.types.absent and name not in defaults:
            hint = f'write {name}: {{from: "{ref}", optional: true}}, or give a default'
            yield Problem("may-be-absent", f"{ref} is absent where {ref.owner} is skipped", path, hint=hint)
        elif name in defaults and ref in self.types.refs and ref not in self.types.absent:
            message = f"{ref} is never absent"
            yield Problem("unused-default", message, path, on_key=True, severity="warning")
        elif defaults.get(name) is not None and ref in self.types.refs:
            for message in faults(Port(self.types.refs[ref]), defaults[name]):
                yield Problem("bad-default", f"the default does not fit: {message}", (*path, "default"))

    def _chat(self) -> Iterator[Problem]:
        chat = self.pipeline.chat
        if chat is not None:
            yield from self._chat_input(chat.input)
            yield from self._chat_output(chat.output)

    def _chat_input(self, name: str) -> Iterator[Problem]:
        inputs, path = self.pipeline.inputs, ("chat", "input")
        if name not in inputs:
            if f"{INPUTS}.{name}" not in self.unreadable:
                hint = nearest(name, inputs)
                yield Problem("unknown-input", f"the pipeline has no input {name}", path, hint=hint)
            return
        if not assignable(STRING, inputs[name].type):
            message = f"{name} is a {inputs[name].type}, a chat gives a string"
            yield Problem("type-mismatch", message, path)
        others = [other for other, port in inputs.items() if port.required and other != name]
        if others:
            message = f"a chat gives only {name}, but {others[0]} is required too"
            yield Problem("missing-input", message, path, hint=f"give {others[0]} a default")

    def _chat_output(self, name: str) -> Iterator[Problem]:
        outputs, path = self.pipeline.outputs, ("chat", "output")
        if name not in outputs:
            if f"outputs.{name}" not in self.unreadable:
                hint = nearest(name, outputs)
                yield Problem("unknown-output", f"the pipeline has no output {name}", path, hint=hint)
        elif outputs[name] in self.types.refs and not assignable(self.types.outputs[name], STRING):
            message = f"{name} is a {self.types.outputs[name]}, a reply is a string"
            yield Problem("type-mismatch", message, path)

    def _context(self) -> Iterator[Problem]:
        for index, name in enumerate(self.pipeline.context.reads):
            if name not in CONTEXT_FIELDS:
                hint = nearest(name, CONTEXT_FIELDS)
                message = f"the context has no field {name}"
                yield Problem("unknown-context", message, ("context", "reads", index), hint=hint)

    def _unused(self) -> Iterator[Problem]:
        """Warnings: what need not be asked for."""
        used = set(self.pipeline.outputs.values())
        for node in self.pipeline.nodes.values():
            used.update(node.references())
        for name in self.pipeline.inputs:
            if Ref(INPUTS, name) not in used and self.scope.all_read:
                message = f"the input {name} is never used"
                yield Problem("unused-input", message, ("inputs", name), on_key=True, severity="warning")


def _fits_keyword(keyword: str, limit: object) -> bool:
    if keyword == "enum":
        return isinstance(limit, list) and bool(limit)
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        return False
    return keyword in ("minimum", "maximum") or (isinstance(limit, int) and limit >= 0)
