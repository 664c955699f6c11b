"""The templates of prompt nodes: Jinja2, cut down to a language that always ends and cannot reach anything.

Whoever may submit a pipeline may submit a template, so it gets values and nothing else: no calls, no
assignments, no macros, no includes, no multiplication of texts, a short list of filters, and bounds on loops
and on output.
A name that is not given is an error, never an empty text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeVisitor

from graphs.errors import nearest

MAX_TEMPLATE_CHARS = 32_768
MAX_RENDERED_CHARS = 262_144
MAX_DEPTH = 20
"""Of expressions and blocks inside each other."""
MAX_ITERATIONS = 10_000
"""Of all loops of one rendering together."""

_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "first", "float", "int", "last", "length", "list"),
    *("lower", "map", "max", "min", "reject", "rejectattr", "reverse", "round", "select", "selectattr"),
    *("sort", "string", "sum", "title", "trim", "truncate", "unique", "upper", "wordcount"),
)
_ALLOWED: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.CondExpr, nodes.Name),
    *(
        nodes.Const,
        nodes.List,
        nodes.Tuple,
        nodes.Dict,
        nodes.Pair,
        nodes.Keyword,
        nodes.Getattr,
        nodes.Getitem,
    ),
    *(nodes.Slice, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Neg, nodes.Pos),
)
TOO_DEEP = "nested too deep"

_BUDGET = "_budget"
_BOUNDED = "_bounded"


class TemplateFault(msgspec.Struct, frozen=True):
    """A mistake in a template."""

    message: str
    line: int
    """Of the template, from 1."""
    token: str | None = None
    hint: str | None = None


class TemplateRefused(ValueError):
    """A template that cannot be used. `faults` says why; `variables` are those found all the same."""

    def __init__(self, faults: list[TemplateFault], variables: Mapping[str, int] | None = None) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults
        self.variables = variables or {}

    def __reduce__(self) -> tuple[object, ...]:
        return TemplateRefused, (self.faults, self.variables)


class Outline(msgspec.Struct, frozen=True):
    """What a template asks for, without what it takes to render it."""

    variables: Mapping[str, int]
    """Names that must be given, with the line on which each is first used."""
    faults: tuple[TemplateFault, ...] = ()
    """Why it cannot be used; empty where it can."""
    head: str = ""
    """The text that everything it renders begins with."""


class RenderError(ValueError):
    """The values do not fit the template, or the text would be too long."""


class PromptTemplate:
    """A template that was checked, ready to be rendered.

    Raises `TemplateRefused` when it is made.
    """

    def __init__(self, source: str) -> None:
        tree = _parse(source)
        self.variables: Mapping[str, int] = _variables(tree)
        """Names that must be given, with the line on which each is first used."""
        self._template: Template = _ENVIRONMENT.from_string(_bound_loops(tree))

    def render(self, values: Mapping[str, Any]) -> str:
        """The text. Raises `RenderError`."""
        pieces: list[str] = []
        room = MAX_RENDERED_CHARS
        try:
            for piece in self._template.generate({**values, _BUDGET: [MAX_ITERATIONS]}):
                room -= len(piece)
                if room < 0:
                    raise RenderError(f"the rendered text is longer than {MAX_RENDERED_CHARS} characters")
                pieces.append(piece)
        except (TemplateError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
            raise RenderError(str(error)[:500]) from error
        return "".join(pieces)


def outline(source: str) -> Outline:
    """Quicker than the template itself, for those who only check. Never raises."""
    try:
        tree = _parse(source)
        return Outline(_variables(tree), head=_head(tree))
    except TemplateRefused as refused:
        return Outline(refused.variables, tuple(refused.faults))


@lru_cache(maxsize=512)
def compile_template(source: str) -> PromptTemplate:
    """The template, made once. Raises `TemplateRefused`."""
    return PromptTemplate(source)


def _parse(source: str) -> nodes.Template:
    if len(source) > MAX_TEMPLATE_CHARS:
        raise TemplateRefused([TemplateFault(f"longer than {MAX_TEMPLATE_CHARS} characters", 1)])
    try:
        tree = _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        raise TemplateRefused([TemplateFault(error.message or "not a template", error.lineno)]) from error
    except RecursionError as error:
        raise TemplateRefused([TemplateFault(TOO_DEEP, 1)]) from error
    faults = list(_faults(tree))
    if faults:
        deep = any(fault.message == TOO_DEEP for fault in faults)
        raise TemplateRefused(faults, {} if deep else _variables(tree))
    return tree


def _faults(tree: nodes.Template) -> Iterator[TemplateFault]:
    """What the language does not have."""
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            yield TemplateFault(TOO_DEEP, node.lineno or 1)
            return
        yield from _node_faults(node)
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())


def _node_faults(node: nodes.Node) -> Iterator[TemplateFault]:
    line = node.lineno or 1
    if not isinstance(node, _ALLOWED):
        yield TemplateFault(f"{type(node).__name__.lower()} is not allowed in a template", line)
    name = node.name if isinstance(node, nodes.Filter | nodes.Test | nodes.Name) else ""
    if name.startswith("_"):
        yield TemplateFault(f"the name {name} begins with an underscore", line, name)
    elif name == "loop" and isinstance(node, nodes.Name) and node.ctx == "store":
        yield TemplateFault("loop is what every loop has already, and no name for its items", line, name)
    elif isinstance(node, nodes.Filter) and name not in _ENVIRONMENT.filters:
        hint = nearest(name, _ENVIRONMENT.filters)
        yield TemplateFault(f"unknown filter {name}", line, name, hint)
    elif isinstance(node, nodes.Test) and name not in _ENVIRONMENT.tests:
        hint = nearest(name, _ENVIRONMENT.tests)
        yield TemplateFault(f"unknown test {name}", line, name, hint)


def _head(tree: nodes.Template) -> str:
    """The constant text before the first thing that is not: the prefix that all its renderings share."""
    head = ""
    for node in tree.body:
        for part in node.nodes if isinstance(node, nodes.Output) else [node]:
            if not isinstance(part, nodes.TemplateData):
                return head
            head += part.data
    return head


def _variables(tree: nodes.Template) -> dict[str, int]:
    """The free names and the first line of each. Only loops bind names in this language."""
    lines: dict[str, int] = {}
    for name, line in _free(tree, frozenset()):
        lines[name] = min(line, lines.get(name, line))
    return lines


def _free(node: nodes.Node, bound: frozenset[str]) -> Iterator[tuple[str, int]]:
    if isinstance(node, nodes.Name):
        if node.name not in bound:
            yield node.name, node.lineno
        return
    if not isinstance(node, nodes.For):
        for child in node.iter_child_nodes():
            yield from _free(child, bound)
        return
    inner = bound | {name.name for name in _names(node.target)} | {"loop"}
    yield from _free(node.iter, bound)
    for child in (*node.body, *([node.test] if node.test else [])):
        yield from _free(child, inner)
    for child in node.else_:
        yield from _free(child, bound)


def _names(target: nodes.Node) -> Iterator[nodes.Name]:
    if isinstance(target, nodes.Name):
        yield target
    yield from target.find_all(nodes.Name)


class _LoopBounder(NodeVisitor):
    def visit_For(self, node: nodes.For) -> None:  # noqa: N802 — the visitor finds its methods by node name
        node.iter = nodes.Filter(node.iter, _BOUNDED, [], [], None, None, lineno=node.lineno)
        self.generic_visit(node)


def _bound_loops(tree: nodes.Template) -> nodes.Template:
    _LoopBounder().visit(tree)
    return tree


@pass_context
def _bounded(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    """The values, each of them paid for out of the budget of the rendering."""
    budget: list[int] = context[_BUDGET]
    for value in values:
        if budget[0] == 0:
            raise RenderError(f"the loops of the template run more than {MAX_ITERATIONS} times")
        budget[0] -= 1
        yield value


def _join(values: Iterable[Any], separator: str = "") -> str:
    texts = [str(value) for value in values]
    if sum(map(len, texts)) + len(separator) * len(texts) > MAX_RENDERED_CHARS:
        raise RenderError(f"join makes more than {MAX_RENDERED_CHARS} characters")
    return separator.join(texts)


def _to_json(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
    )
    environment.filters = {name: FILTERS[name] for name in _FILTERS}
    environment.filters |= {"join": _join, "tojson": _to_json, _BOUNDED: _bounded}
    environment.globals.clear()
    return environment


_ENVIRONMENT = _environment()
