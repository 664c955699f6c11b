"""What can be wrong with a node that has nodes inside it, as far as these are not at fault themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set

from graphs.bindings import CONTEXT, Ref, references
from graphs.checks.scope import Scope
from graphs.conditions import references_of
from graphs.errors import Path, Problem, nearest
from graphs.inference import given_types
from graphs.nodes.agent import Agent
from graphs.nodes.branch import Branch
from graphs.nodes.loop import Loop
from graphs.nodes.map import BODY, Map, Reducer
from graphs.nodes.router import Router
from graphs.nodes.spec import BodyTypes
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Body, Node, NodeId, name_fault
from graphs.ports import ANY, BOOLEAN, INTEGER, NUMBER, STRING, PortType, assignable, list_of

_REDUCED: Mapping[Reducer, PortType] = {
    "collect": ANY,
    "flatten": list_of(ANY),
    "join": STRING,
    "sum": NUMBER,
    "min": NUMBER,
    "max": NUMBER,
    "any": BOOLEAN,
    "all": BOOLEAN,
}
"""What each way of putting results together takes."""
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")


def inner_scopes(scope: Scope, path: Path, node_id: NodeId, node: Node) -> Iterator[tuple[Body, Scope]]:
    """The bodies that are checked with the node. Those of a closed kind were checked where they come from."""
    types = scope.types.bodies.get(node_id)
    if types is None or node.spec.closed:
        return
    given = given_types(node, scope.types.refs, scope.types.absent)
    for key, body in node.bodies.items():
        place = (*path, *node.spec.place(key))
        yield body, scope.inside(place, body.nodes, types[key], node.spec.locals(key, given))


def given_by(body: Body) -> Iterator[Ref]:
    """What is wanted of the nodes of a body."""
    for binding in body.outputs.values():
        yield from references(binding)
    yield from references_of(body.until)


def body_problems(scope: Scope, path: Path, node_id: NodeId, node: Node) -> Iterator[Problem]:
    """Every problem of the bodies of a node, apart from those of the nodes in them."""
    whole = node_id not in scope.complained
    for body, inner in inner_scopes(scope, path, node_id, node):
        yield from _locals(scope, path, node, inner)
        yield from _body(scope, body, inner, whole=whole)
    if not whole:
        return
    types = {key: typed.outputs for key, typed in scope.types.bodies.get(node_id, {}).items()}
    match node.spec:
        case Map():
            yield from _keys(path, node, {BODY})
            yield from _map((*path, "map"), node.spec, types)
        case Branch():
            yield from _branch((*path, "branch"), node, types)
        case Loop():
            yield from _keys(path, node, {BODY})
            yield from _loop(scope, path, node, node.spec, types)
        case Router():
            yield from _keys(path, node, set(node.spec.choices))
            yield from _names(path, node)
            yield from _own_name(path, node, "choice")
        case Agent():
            yield from _keys(path, node, set(node.spec.tools))
            yield from _names(path, node)
            yield from _tools(path, node)
        case Subgraph():
            yield from _keys(path, node, {BODY})
            yield from _graph(scope, (*path, "subgraph", "graph"), node, node.spec)
        case _:
            yield from _keys(path, node, set())


def _locals(scope: Scope, path: Path, node: Node, inner: Scope) -> Iterator[Problem]:
    """Whether the names that only the body sees can be told from all others."""
    for name in inner.own:
        renamed = isinstance(node.spec, Map | Loop)
        place = (*path, node.kind, "as") if renamed else inner.path
        if fault := name_fault(name):
            yield Problem("bad-name", fault, place, on_key=not renamed)
        elif scope.has(name):
            hint = "give it another name with as" if renamed else "put it into a graph of its own"
            message = f"there is a {name} around this already"
            yield Problem("shadowed", message, place, on_key=True, hint=hint)


def _body(scope: Scope, body: Body, inner: Scope, *, whole: bool) -> Iterator[Problem]:
    for name, binding in body.outputs.items():
        place = (*inner.path, "outputs", name)
        if fault := name_fault(name):
            yield Problem("bad-name", fault, place, on_key=True)
        yield from inner.binding(place, binding)
    if body.when is not None:
        yield from scope.condition((*inner.path, "when"), body.when)
    if body.until is not None:
        yield from inner.condition((*inner.path, "until"), body.until)
        seen = {ref.owner for ref in references_of(body.until)}
        if whole and not any(owner in inner.nodes or owner in inner.own for owner in seen):
            message = "until looks at nothing of the loop, so it is the same after every pass"
            yield Problem("constant-until", message, (*inner.path, "until"), severity="warning")
    effectful = any(node.all_effects() == "effectful" for node in body.nodes.values())
    if whole and not body.outputs and not effectful:
        hint = "write outputs: {name: ${node.port}}"
        yield Problem("no-outputs", "these nodes give nothing", inner.path, on_key=True, hint=hint)


def _keys(path: Path, node: Node, expected: Set[str]) -> Iterator[Problem]:
    """Whether there are the bodies that the settings speak of, and no others."""
    for key in sorted(expected - set(node.bodies)):
        message = f"there is nothing to run for {key}"
        yield Problem("missing", message, (*path, *node.spec.place(key)), on_key=True)
    for key in sorted(set(node.bodies) - expected):
        message = f"nothing in the settings speaks of the body {key}"
        yield Problem("unknown-body", message, path, on_key=True, hint=nearest(key, expected))


def _names(path: Path, node: Node) -> Iterator[Problem]:
    """Whether the paths of nodes can be made of the names of the bodies that they are in."""
    for key in node.bodies:
        if fault := name_fault(key):
            hint = (
                f"call it {fit}" if (fit := _UNFIT.sub("-", key).strip("-")) and not name_fault(fit) else None
            )
            yield Problem("bad-name", fault, (*path, *node.spec.place(key)), on_key=True, hint=hint)


def _own_name(path: Path, node: Node, name: str) -> Iterator[Problem]:
    """Whether an output of a body takes the name of one that the kind itself has."""
    for key, body in node.bodies.items():
        if name in body.outputs:
            place = (*path, *node.spec.place(key), "outputs", name)
            message = f"{name} is an output that every {node.kind} has"
            yield Problem("reserved-name", message, place, on_key=True)


def _map(path: Path, spec: Map, types: BodyTypes) -> Iterator[Problem]:
    given = types.get(BODY, {})
    for name, reducer in spec.reduce.items():
        place = (*path, "reduce", name)
        if name not in given:
            message = f"the nodes give no output {name}"
            yield Problem("unknown-output", message, place, on_key=True, hint=nearest(name, given))
            continue
        port_type, takes = _present(given[name]), _REDUCED[reducer]
        if port_type != ANY and not assignable(port_type, takes):
            message = f"{name} is a {port_type}, {reducer} takes a {takes}"
            yield Problem("type-mismatch", message, place)


def _present(port_type: PortType) -> PortType:
    return port_type.item if port_type.name == "optional" and port_type.item is not None else port_type


def _branch(path: Path, node: Node, types: BodyTypes) -> Iterator[Problem]:
    cases = list(node.bodies.values())
    if not cases:
        hint = "write - {when: …, nodes: …, outputs: …}"
        yield Problem("missing", "a branch needs cases", path, hint=hint)
        return
    if set(node.bodies) != {str(index) for index in range(len(cases))}:
        yield Problem("unknown-body", "the cases of a branch are numbered from 0", path)
        return
    yield from _unreachable(path, [node.bodies[str(index)] for index in range(len(cases))])
    names = [set(outputs) for outputs in types.values()]
    if len(names) > 1 and all(names) and not set.intersection(*names):
        hint = "give what is the same in all cases the same name"
        message = "the cases have no output in common: " + " and ".join(
            ", ".join(sorted(each)) for each in names
        )
        yield Problem("no-common-output", message, path, on_key=True, hint=hint)


def _unreachable(path: Path, cases: Sequence[Body]) -> Iterator[Problem]:
    always = next((index for index, case in enumerate(cases) if case.when is None), len(cases))
    for index in range(always + 1, len(cases)):
        hint = f"case {always + 1} has no condition, so it always applies: put it last"
        yield Problem("unreachable-case", "this case is never reached", (*path, index), hint=hint)


def _loop(scope: Scope, path: Path, node: Node, spec: Loop, types: BodyTypes) -> Iterator[Problem]:
    yield from _own_name(path, node, "iterations")
    if "iteration" in spec.state:
        message = "iteration is the number of the pass"
        yield Problem("reserved-name", message, (*path, "with", "iteration"), on_key=True)
    start = given_types(node, scope.types.refs, scope.types.absent)
    for name, port_type in types.get(BODY, {}).items():
        state = start.get(name, ANY)
        if name in spec.state and ANY not in (port_type, state) and not assignable(port_type, state):
            place = (*path, *spec.place(BODY), "outputs", name)
            message = f"{name} starts as a {state}, a pass makes it a {port_type}"
            yield Problem("type-mismatch", message, place, hint=_wider(name, state, port_type))


def _wider(name: str, state: PortType, port_type: PortType) -> str | None:
    if state == INTEGER and port_type == NUMBER:
        return f"start with a point in the number, as {name}: 0.0"
    return None


def _tools(path: Path, node: Node) -> Iterator[Problem]:
    for key, body in node.bodies.items():
        place = (*path, *node.spec.place(key))
        if not body.outputs and any(inner.all_effects() == "effectful" for inner in body.nodes.values()):
            message = f"the tool {key} gives no output, so the model learns nothing from it"
            yield Problem("no-outputs", message, place, on_key=True)


def _graph(scope: Scope, path: Path, node: Node, spec: Subgraph) -> Iterator[Problem]:
    """Whether the pipeline may see of the context what the other one reads."""
    refs = {ref for body in node.bodies.values() for ref in body.references() if ref.owner == CONTEXT}
    for ref in sorted(refs):
        if ref not in scope.types.refs:
            message = f"{spec.graph} reads {ref.port}, which this pipeline does not declare"
            hint = f"add it to context: {{reads: [{ref.port}]}}"
            yield Problem("undeclared-context", message, path, hint=hint)
