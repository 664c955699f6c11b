"""Nodes as they are recorded one by one, with references where values will be when the pipeline runs.

A `Builder` records them, and a function that `graphs.python` traces does. Nothing here has the name yet that
it will have in the pipeline: `graphs.naming` finds those once everything is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, Self, TypeVar

import msgspec
from msgspec import UNSET

from graphs.bindings import CONTEXT, INPUTS, Binding, Items, Literal, Record, Ref
from graphs.durations import parse_duration
from graphs.errors import PipelineError, Problem, nearest
from graphs.nodes.registry import AnySpec
from graphs.nodes.spec import Effects
from graphs.nodes.tool import Tool
from graphs.pipeline import Body, Cache, Fallback, Retry, RetryOn, port_names
from graphs.tracing import Traced

StructT = TypeVar("StructT", bound=msgspec.Struct)


class _NoValue(Traced):
    """Refuses what only values can do, where it is written."""

    def _refuse(self, *_: object) -> NoReturn:
        message = f"{self!r} has no value before the pipeline runs"
        raise TypeError(f"{message}: use a condition, a template, each or branch")

    __bool__ = __iter__ = __len__ = __str__ = __format__ = __eq__ = __ne__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __add__ = __radd__ = _refuse
    __hash__ = object.__hash__


class Reference(_NoValue):
    """What will be in a port when the pipeline runs. It has no value while the pipeline is written."""

    def __init__(self, owner: Owner, port: str) -> None:
        self.owner = owner
        self.port = port

    def or_else(self, default: Any) -> Defaulted:
        """As an output of the pipeline: with a value for where it is absent. None makes it optional."""
        return Defaulted(self, default)

    def __repr__(self) -> str:
        return f"<{self.owner.label}.{self.port}>"

    __getitem__ = _NoValue._refuse

    def __getattr__(self, name: str) -> NoReturn:
        hint = "a node takes what it needs of it in its template or its settings"
        raise AttributeError(f"{self!r} has no value before the pipeline runs, so no {name}: {hint}")


class Defaulted:
    """An output with a value for where it is absent."""

    def __init__(self, reference: Reference, default: Any) -> None:
        self.reference = reference
        self.default = default


class Item(Reference):
    """The item that a body of a map is run for."""

    @property
    def index(self) -> Reference:
        """Its place in the list, from 0."""
        return Reference(self.owner, "index")


class Owner:
    """What references are to: a node, the inputs, the context, or what only a body sees."""

    def __init__(self, scope: Scope, label: str) -> None:
        self.scope = scope
        self.label = label
        """What people call it. Its name, which may be another, is found when the pipeline is built."""
        self.key = f"#{id(self)}"
        """What it is called until then."""


class Wish:
    """A condition before its names are known: `names` stand in it for references or, as keys, for owners."""

    def __init__(self, text: str, names: Mapping[str, Ref | str]) -> None:
        self.text = text
        self.names = names


class Step(_NoValue):
    """A node that was recorded: `node.port`, or `node["port"]`, refers to one of its outputs.

    What is said of it afterwards gives the node itself, so that it can be said in one go. What it keeps, and
    `graphs.naming` reads, has names with an underscore in front: any other may be that of an output.
    """

    def __init__(
        self, scope: Scope, spec: AnySpec, inputs: Mapping[str, Binding], bodies: Mapping[str, Scope | Body]
    ) -> None:
        outputs = {key: list(body.outputs) for key, body in bodies.items()}
        self._owner = Owner(scope, spec.kind())
        self._name: str | None = None
        self._spec = spec
        self._inputs = inputs
        self._bodies = bodies
        self._ports = port_names(spec, outputs)
        self._after: tuple[Step, ...] = ()
        self._when: Wish | None = None
        self._policies: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<{self._owner.label}>"

    def __getitem__(self, port: str) -> Reference:
        if port not in self._ports:
            raise KeyError(_no_output(self._owner.label, port, self._ports))
        return Reference(self._owner, port)

    def __getattr__(self, port: str) -> Reference:
        if port.startswith("__") or port not in self._ports:
            raise AttributeError(_no_output(self._owner.label, port, self._ports))
        return Reference(self._owner, port)

    def named(self, name: str) -> Self:
        """Gives it a name. Raises `ValueError` where there is a node of that name beside it."""
        names = self._owner.scope.names
        if name in names:
            raise ValueError(f"there is a node {name} already")
        names.discard(self._name or "")
        names.add(name)
        self._name = self._owner.label = name
        return self

    def after(self, *others: Step) -> Self:
        """Makes it wait for others of which it takes nothing."""
        for other in others:
            if other._owner.scope is not self._owner.scope:
                raise _refused(
                    f"{self._owner.label} cannot come after {other._owner.label}, which is not beside it"
                )
        self._after = (*self._after, *others)
        return self

    def when(self, condition: str, **names: Any) -> Self:
        """Skips it where the condition, in CEL, does not hold.

        `names` stand in the condition for references: `.when("size(found) > 0", found=hits.documents)`.
        """
        self._when = self._owner.scope.wish(condition, names)
        return self

    def retry(self, attempts: int = 3, on: Sequence[RetryOn] = Retry().on) -> Self:
        """Tries it again."""
        self._policies["retry"] = normal(Retry(attempts, tuple(on)))
        return self

    def timeout(self, duration: str | float) -> Self:
        """Bounds each try, as `"30s"` or in seconds. Raises `ValueError`."""
        self._policies["timeout_s"] = parse_duration(duration)
        return self

    def fallback(self, *, model: str | None = None, value: Any = UNSET, cached: bool = False) -> Self:
        """What takes its place where it has failed: another model, a constant, or what it gave last for the
        same inputs. Said again: what then."""
        made = normal(Fallback(model, value, cached))
        self._policies["fallback"] = (*self._policies.get("fallback", ()), made)
        return self

    def effects(self, effects: Effects) -> Self:
        """Says what its side effects are, in place of its kind."""
        self._policies["effects"] = effects
        return self

    def cache(self, ttl: str | float) -> Self:
        """Gives again what it gave, for so long, as `"10m"` or in seconds. Raises `ValueError`."""
        self._policies["cache"] = Cache(parse_duration(ttl))
        return self


class Scope:
    """Where nodes are recorded: the pipeline or a body. They see each other and what is around them."""

    def __init__(self, title: str, around: Scope | None = None) -> None:
        self.title = title
        self.around = around
        self.steps: list[Step] = []
        self.names: set[str] = set()
        """Of nodes that were given one."""
        self.local: Owner | None = None
        """What only this body sees, for bodies that have such."""
        self.outputs: dict[str, Binding] = {}
        self.when: Wish | None = None
        self.until: Wish | None = None

    def record(
        self, spec: Any, inputs: Mapping[str, Any], bodies: Mapping[str, Scope | Body] | None = None
    ) -> Step:
        """Adds a node. Inputs are references, constants, or lists and dictionaries of both.

        Raises `TypeError` for what JSON does not have, `PipelineError` for references that cannot be seen
        here and `msgspec.ValidationError` for a spec with a field out of its bounds.
        """
        bound = {port: self.binding(value) for port, value in inputs.items()}
        if isinstance(spec, Tool):
            spec = spec.taking(bound)
        step = Step(self, normal(spec), bound, bodies or {})
        self.steps.append(step)
        return step

    def binding(self, value: Any) -> Binding:
        """The binding of a Python value, in which owners still have keys for names."""
        if isinstance(value, Step):
            value = only_output(value)
        if isinstance(value, Reference):
            return self.seen(value)
        if isinstance(value, list | tuple):
            items = tuple(self.binding(item) for item in value)
            constants = [item.value for item in items if isinstance(item, Literal)]
            return Literal(constants) if len(constants) == len(items) else Items(items)
        if isinstance(value, dict):
            fields = {str(name): self.binding(item) for name, item in value.items()}
            values = {name: field.value for name, field in fields.items() if isinstance(field, Literal)}
            return Literal(values) if len(values) == len(fields) else Record(fields)
        if value is None or isinstance(value, str | bool) or _is_number(value):
            return Literal(value)
        raise TypeError(f"{value!r:.80} is neither a reference nor a value that JSON has")

    def seen(self, reference: Reference) -> Ref:
        """Raises `PipelineError` where it cannot be referred to from here."""
        home = reference.owner.scope
        if not any(scope is home for scope in self.outward()):
            told = f"{reference.owner.label}.{reference.port} is inside {home.title} and cannot be seen"
            raise _refused(f"{told} in {self.title}: make it an output there")
        return Ref(reference.owner.key, reference.port)

    def wish(self, condition: str, names: Mapping[str, Any]) -> Wish:
        """A condition over what can be seen here, in which `names` stand for references."""
        return Wish(condition, {name: self.seen(reference_to(value)) for name, value in names.items()})

    def outward(self) -> Iterator[Scope]:
        """This scope and those around it, innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.around


class Root(Scope):
    """The pipeline itself."""

    def __init__(self) -> None:
        super().__init__("the pipeline")
        self.given = Owner(self, INPUTS)
        self.conversation = Owner(self, CONTEXT)
        self.reads: list[str] = []

    def context(self, field: str) -> Reference:
        """Declares that the pipeline reads a field of the context, as `sessionHistory`."""
        if field not in self.reads:
            self.reads.append(field)
        return Reference(self.conversation, field)


def only_output(step: Step) -> Reference:
    """Its one output. Raises `TypeError` where it has several."""
    if len(step._ports) != 1:
        raise TypeError(f"{step._owner.label} has the outputs {', '.join(step._ports)}: say which")
    return Reference(step._owner, step._ports[0])


def all_outputs(step: Step) -> dict[str, Reference]:
    """Its outputs by name."""
    return {port: Reference(step._owner, port) for port in step._ports}


def reference_to(value: Any) -> Reference:
    """What a reference, or a node with one output, refers to. Raises `TypeError` for anything else."""
    if isinstance(value, Step):
        return only_output(value)
    if not isinstance(value, Reference):
        raise TypeError(f"{value!r:.80} is no reference")
    return value


def _no_output(label: str, port: str, ports: Sequence[str]) -> str:
    hint = nearest(port, ports)
    return f"{label} has no output {port}" + (f"; {hint}" if hint else "")


def _refused(message: str) -> PipelineError:
    return PipelineError([Problem("out-of-scope", message)])


def normal(struct: StructT) -> StructT:
    """The same, checked, and with the very values that reading it from YAML gives."""
    return msgspec.convert(msgspec.to_builtins(struct), type(struct))


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)
