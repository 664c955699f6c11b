"""Pipelines as people write them in Python: a function is traced once and becomes a frozen `Pipeline`.

    @pipeline(version="1.0.0")
    def support_rag(question: str, top_k: Annotated[int, Meta(ge=1)] = 4) -> dict[str, Any]:
        vector = Embed("minilm")(text=question)
        hits = Retrieve("manual")(embedding=vector.embedding, top_k=top_k)
        notes = each(hits.documents, lambda doc: Llm("smollm2", prompt="Sum up: {{ doc.text }}")(doc=doc))
        answer = Llm("smollm2", prompt=ANSWER)(question=question, notes=notes.text).retry().timeout("30s")
        return {"text": answer.text, "sources": hits.documents}

A kind with its settings, as `Embed("minilm")`, is called with its inputs and gives a node, whose outputs are
its attributes. Bodies are functions that are traced in turn. What is referred to has no value yet: choices
are made with `branch` and `.when`, texts with templates.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

from msgspec import UNSET

from graphs.bindings import Ref
from graphs.builder import Builder
from graphs.hints import port_of
from graphs.nodes.agent import ARGS, Agent, AgentTool
from graphs.nodes.branch import Branch
from graphs.nodes.loop import Loop
from graphs.nodes.map import BODY, Map, Order, Reducer
from graphs.nodes.router import Router
from graphs.nodes.subgraph import Subgraph
from graphs.nodes.value import Value
from graphs.pipeline import Body, Chat, Pipeline, Policies
from graphs.ports import Port
from graphs.recording import (
    Defaulted,
    Item,
    Owner,
    Reference,
    Root,
    Scope,
    Step,
    Wish,
    all_outputs,
    only_output,
)
from graphs.tracing import recorder, tracing

Traced = Callable[..., Any]
"""Gives a node, whose outputs are then those of the body; or outputs by name; or one reference."""


class Case(NamedTuple):
    """One way of a `branch`."""

    condition: str | None
    body: Traced
    names: Mapping[str, Any]


class Choice(NamedTuple):
    """One way of a `router`."""

    description: str
    """What it is for, in words that the model reads."""
    body: Traced


class State:
    """What a loop's body sees of the pass before: `state.draft`, and `state.iteration`, from 0."""

    def __init__(self, local: Owner, names: Sequence[str]) -> None:
        self._local = local
        self._names = (*names, "iteration")

    def __getattr__(self, name: str) -> Reference:
        if name not in self._names:
            raise AttributeError(f"the state has {', '.join(self._names)}, and no {name}")
        return Reference(self._local, name)


def pipeline(
    *,
    version: str = "0.0.0",
    name: str | None = None,
    description: str | None = None,
    chat: Chat | None = None,
    policies: Policies | None = None,
) -> Callable[[Traced], Pipeline]:
    """Traces a function into a pipeline: its parameters are the inputs, what it returns the outputs by name.

    Without a name it is the function's, with dashes; without a description the first line of its docstring.
    Raises `PipelineError` with every mistake, and `TypeError` for a parameter whose hint no input can have.
    """

    def trace(function: Traced) -> Pipeline:
        text = description if description is not None else _summary(function)
        builder = Builder(
            name or function.__name__.replace("_", "-"), version=version, description=text, policies=policies
        )
        inputs = {port_name: builder.port(port_name, port) for port_name, port in _ports(function).items()}
        with tracing(builder.scope):
            outputs = _outputs(function(**inputs), "the pipeline")
            for output, value in outputs.items():
                _declare(builder, output, value)
        if chat is not None:
            builder.chat(input=chat.input, output=chat.output)
        return builder.build()

    return trace


def context(field: str) -> Reference:
    """A field of the conversation's context, as `sessionHistory`, which the pipeline then reads."""
    *_, root = _scope().outward()
    assert isinstance(root, Root)
    return root.context(field)


def value(given: Any) -> Reference:
    """A list or record put together from other values, or a constant."""
    return only_output(Value()(value=given))


def each(
    over: Any,
    body: Traced,
    *,
    max_concurrency: int = 8,
    max_items: int = 100,
    order: Order = "items",
    reduce: Mapping[str, Reducer] | None = None,
) -> Step:
    """A `map`: the body is traced with the item, which has an `index`. Its outputs come out as lists, or as
    `reduce` says by output."""
    inner, item = _inner("the body of each", _parameter(body))
    _trace(inner, body, Item(item, "value"))
    spec = Map(max_concurrency=max_concurrency, max_items=max_items, order=order, reduce=dict(reduce or {}))
    return _scope().record(spec, {"over": over}, {BODY: inner})


def case(condition: str, body: Traced, **names: Any) -> Case:
    """A way of a `branch`. `names` stand in the condition for references."""
    return Case(condition, body, names)


def branch(*cases: Case, otherwise: Traced | None = None) -> Step:
    """Runs the first case whose condition holds, else `otherwise`. Their outputs have the same names."""
    ways = [*cases, *([] if otherwise is None else [Case(None, otherwise, {})])]
    bodies: dict[str, Scope | Body] = {}
    for index, way in enumerate(ways):
        scope = _traced(f"case {index + 1} of branch", way.body)
        scope.when = None if way.condition is None else _scope().wish(way.condition, way.names)
        bodies[str(index)] = scope
    return _scope().record(Branch(exhaustive=otherwise is not None), {}, bodies)


def loop(
    start: Mapping[str, Any], body: Traced, *, max_iterations: int, until: str | None = None, **names: Any
) -> Step:
    """Traces the body with the state, which begins as `start`; the outputs of the body are the next state.

    In `until`, a condition, the outputs of the body stand by name, the state by that of the body's parameter,
    and `names` for references around the loop.
    """
    states = tuple(sorted(start))
    inner, state = _inner("the body of loop", _parameter(body))
    _trace(inner, body, State(state, states))
    if until is not None:
        given = {name: given for name, given in inner.outputs.items() if isinstance(given, Ref)}
        around = _scope().wish(until, names).names
        inner.until = Wish(until, {state.label: state.key, **around, **given})
    spec = Loop(max_iterations=max_iterations, state=states)
    return _scope().record(spec, start, {BODY: inner})


def router(model: str, text: Any, choices: Mapping[str, Choice], *, max_prompt_tokens: int = 512) -> Step:
    """A model reads the text and chooses by the descriptions which body is run."""
    described = {name: choice.description for name, choice in choices.items()}
    bodies: dict[str, Scope | Body] = {
        name: _traced(f"the choice {name}", choice.body) for name, choice in choices.items()
    }
    spec = Router(model, described, max_prompt_tokens=max_prompt_tokens)
    return _scope().record(spec, {"text": text}, bodies)


def agent(
    model: str,
    prompt: Any,
    tools: Sequence[Traced],
    *,
    history: Any = UNSET,
    max_steps: int = 6,
    max_tokens: int = 256,
    max_prompt_tokens: int = 2048,
    temperature: float | None = None,
    system: str | None = None,
) -> Step:
    """A model that calls tools: functions, of which it is told the name, the docstring and the parameters.

    Raises `TypeError` for a parameter whose hint no input can have.
    """
    told = {tool.__name__: AgentTool(_summary(tool), _ports(tool)) for tool in tools}
    bodies: dict[str, Scope | Body] = {}
    for tool in tools:
        inner, args = _inner(f"the tool {tool.__name__}", ARGS)
        _trace(inner, tool, **{name: Reference(args, name) for name in _ports(tool)})
        bodies[tool.__name__] = inner
    spec = Agent(
        model,
        told,
        max_steps=max_steps,
        max_tokens=max_tokens,
        max_prompt_tokens=max_prompt_tokens,
        temperature=temperature,
        system=system,
    )
    inputs = {"prompt": prompt} | ({} if history is UNSET else {"history": history})
    return _scope().record(spec, inputs, bodies)


def subgraph(other: Pipeline, /, **inputs: Any) -> Step:
    """Runs another pipeline as a node."""
    defaults = {name: default for name, default in other.defaults.items() if default is not None}
    body = Body(other.nodes, dict(other.outputs), defaults=defaults)
    return _scope().record(Subgraph(other.metadata.name, other.inputs), inputs, {BODY: body})


def _inner(title: str, name: str) -> tuple[Scope, Owner]:
    """A body, and what only it sees."""
    scope = Scope(title, _scope())
    scope.local = Owner(scope, name)
    return scope, scope.local


def _traced(title: str, function: Traced) -> Scope:
    """A body that sees only what is around it."""
    scope = Scope(title, _scope())
    _trace(scope, function)
    return scope


def _trace(scope: Scope, function: Traced, *positional: Any, **named: Any) -> None:
    with tracing(scope):
        outputs = _outputs(function(*positional, **named), scope.title)
    scope.outputs = {name: scope.binding(given) for name, given in outputs.items()}


def _scope() -> Scope:
    found = recorder()
    assert isinstance(found, Scope)
    return found


def _outputs(result: Any, title: str) -> Mapping[str, Any]:
    """What a traced function gave, by name."""
    if isinstance(result, Step):
        return all_outputs(result)
    if isinstance(result, Reference):
        return {result.port: result}
    if isinstance(result, Mapping):
        return {str(name): given for name, given in result.items()}
    raise TypeError(f"{title} gives a node, a reference, or a dictionary of outputs, and not {result!r:.80}")


def _declare(builder: Builder, name: str, given: Any) -> None:
    """An output of the pipeline; what is no reference yet is put together in a node."""
    if isinstance(given, Defaulted):
        builder.output(name, given.reference, default=given.default)
    elif isinstance(given, Reference | Step):
        builder.output(name, given)
    else:
        builder.output(name, value(given))


def _parameter(body: Traced) -> str:
    """What the body calls what it is given."""
    (parameter,) = inspect.signature(body).parameters
    return parameter


def _ports(function: Traced) -> dict[str, Port]:
    """The parameters of a function as ports."""
    hints = get_type_hints(function, include_extras=True)
    ports = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in hints:
            raise TypeError(f"the parameter {name} of {function.__name__} needs a type")
        given = parameter.default is not inspect.Parameter.empty
        ports[name] = port_of(hints[name], parameter.default if given else UNSET)
    return ports


def _summary(function: Traced) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]
