"""Plain data to the kinds that have nodes inside them.

    map, loop        one body, among the settings; that of a map may be one node beside `map`
    branch           a list of cases, each with a body and a condition
    router, agent    a body in each choice or tool
    subgraph         the nodes of another pipeline, by its name

Wherever `nodes` and `outputs` may stand, one node may stand instead; see `graphs.sugar`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace

from graphs.bindings import Binding
from graphs.errors import nearest
from graphs.nodes.agent import ARGS, Agent, AgentTool
from graphs.nodes.branch import Branch
from graphs.nodes.loop import Loop
from graphs.nodes.map import BODY, Map
from graphs.nodes.registry import KINDS, AnySpec
from graphs.nodes.router import Router
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Body, Node, NodeId
from graphs.reading.base import Place, Reading
from graphs.sugar import EACH, STEP, Names, single, single_name

BODY_FIELDS = ("nodes", "outputs")
"""What a body is written with."""


class Parts(NamedTuple):
    """What a node is made of."""

    spec: AnySpec | None
    """None where it cannot be read."""
    inputs: dict[str, Binding]
    bodies: Mapping[str, Body] = {}


class NodeReader(Protocol):
    """What reads the nodes in a body."""

    reading: Reading

    def nodes(self, data: Any, at: Place, seen: Names) -> dict[NodeId, Node]:
        """Nodes by name."""
        ...

    def node(self, data: Any, at: Place, seen: Names) -> Node | None:
        """One node; None where it cannot be read."""
        ...


def _map(reader: NodeReader, data: Mapping[str, Any], at: Place, seen: Names) -> Parts:
    reading, settings, below = reader.reading, data["map"], at.down("map")
    spec = reading.struct(settings, Map, below.path, beside=("over", *BODY_FIELDS))
    if spec is None:
        return Parts(None, {})
    over = reading.binding(settings["over"], (*below.path, "over")) if "over" in settings else None
    inner = Names({spec.as_}, seen)
    beside = {key: value for key, value in data.items() if key in KINDS and key != "map"}
    if beside:
        for field in BODY_FIELDS:
            if field in settings:
                message = f"the node beside map is its body, so it takes no {field}"
                reading.problem("unknown-field", message, (*below.path, field), on_key=True)
        if "with" in data:
            beside["with"] = data["with"]
        body = _single(reader, beside, Place(at.path, below.full), inner, EACH)
    else:
        if "with" in data:
            hint = "what it runs over is map.over; nodes inside refer to what is around them"
            reading.problem("unknown-field", "map takes no with", (*at.path, "with"), on_key=True, hint=hint)
        body = _body(reader, settings, below, inner)
    return Parts(spec, {} if over is None else {"over": over}, {BODY: body})


def _loop(reader: NodeReader, data: Mapping[str, Any], at: Place, seen: Names) -> Parts:
    reading, settings, below = reader.reading, data["loop"], at.down("loop")
    if not reading.is_mapping(settings, below.path):
        return Parts(None, {})
    own = {name: value for name, value in settings.items() if name in _fields(Loop)}
    if "max_iterations" not in own:
        hint = "write max_iterations: 4, or as many passes as it may take"
        message = "the loop has no bound: max_iterations is missing"
        reading.problem("unbounded-loop", message, below.path, on_key=True, hint=hint)
        own["max_iterations"] = 1
    start = reading.bound(data.get("with", {}), (*at.path, "with"))
    spec = reading.struct(own, Loop, below.path, hidden=Loop.set_when_read, instead={"max_iterations": 1})
    if spec is None:
        return Parts(None, start)
    rest = {name: value for name, value in settings.items() if name not in (*own, "until")}
    body = _any_body(reader, rest, below, Names({spec.as_}, seen), (*_fields(Loop), "until"))
    if "until" in settings:
        body = replace(body, until=reading.condition(settings["until"], (*below.path, "until")))
    return Parts(replace(spec, state=tuple(sorted(start))), start, {BODY: body})


def _branch(reader: NodeReader, data: Mapping[str, Any], at: Place, seen: Names) -> Parts:
    reading, cases, below = reader.reading, data["branch"], at.down("branch")
    _takes_no_with(reading, data, at)
    if not isinstance(cases, list):
        reading.problem("bad-value", "expected a list of cases", below.path)
        return Parts(None, {})
    bodies: dict[str, Body] = {}
    for index, case in enumerate(cases):
        place = below.down(index)
        if not reading.is_mapping(case, place.path):
            continue
        rest = {name: value for name, value in case.items() if name != "when"}
        body = _any_body(reader, rest, place, seen, ("when",))
        when = reading.condition(case["when"], (*place.path, "when")) if "when" in case else None
        bodies[str(index)] = replace(body, when=when)
    last = cases[-1] if cases else None
    return Parts(Branch(exhaustive=isinstance(last, dict) and "when" not in last), {}, bodies)


def _router(reader: NodeReader, data: Mapping[str, Any], at: Place, seen: Names) -> Parts:
    reading, below = reader.reading, at.down("router")
    inputs = reading.bound(data.get("with", {}), (*at.path, "with"))
    entries = _entries(reading, data["router"], "choices", below)
    described: dict[str, Any] = {}
    bodies: dict[str, Body] = {}
    for name, entry in entries.items():
        place = below.down("choices", name)
        described[name] = entry.get("description", name)
        if "description" not in entry:
            reading.problem("missing", f"the choice {name} needs a description", place.path, on_key=True)
        rest = {key: value for key, value in entry.items() if key != "description"}
        bodies[name] = _any_body(reader, rest, place, seen, ("description",))
    given = {"choices": described}
    instead = {"model": "unknown", "choices": {}}
    spec = reading.struct(data["router"], Router, below.path, given=given, instead=instead)
    return Parts(spec, inputs, bodies)


def _agent(reader: NodeReader, data: Mapping[str, Any], at: Place, seen: Names) -> Parts:
    reading, below = reader.reading, at.down("agent")
    inputs = reading.bound(data.get("with", {}), (*at.path, "with"))
    entries = _entries(reading, data["agent"], "tools", below)
    tools: dict[str, AgentTool] = {}
    bodies: dict[str, Body] = {}
    for name, entry in entries.items():
        place = below.down("tools", name)
        own = {key: value for key, value in entry.items() if key in _fields(AgentTool)}
        ports = own.get("inputs", {})
        read = {
            port: reading.port(value, (*place.path, "inputs", port))
            for port, value in (ports.items() if reading.is_mapping(ports, (*place.path, "inputs")) else ())
        }
        given = {"inputs": {port: value for port, value in read.items() if value is not None}}
        instead: dict[str, Any] = {"description": name}
        tool = reading.struct(own, AgentTool, place.path, given=given, instead=instead)
        if tool is not None:
            tools[name] = tool
        rest = {key: value for key, value in entry.items() if key not in own}
        bodies[name] = _any_body(reader, rest, place, Names({ARGS}, seen), _fields(AgentTool))
    instead = {"model": "unknown", "tools": {}}
    spec = reading.struct(data["agent"], Agent, below.path, given={"tools": tools}, instead=instead)
    return Parts(spec, inputs, bodies)


def _subgraph(reader: NodeReader, data: Mapping[str, Any], at: Place, _seen: Names) -> Parts:
    reading, below = reader.reading, at.down("subgraph")
    inputs = reading.bound(data.get("with", {}), (*at.path, "with"))
    spec = reading.struct(data["subgraph"], Subgraph, below.path, hidden=Subgraph.set_when_read)
    if spec is None:
        return Parts(None, inputs)
    if spec.graph in reading.known.refused:
        reading.problem("bad-graph", reading.known.refused[spec.graph], (*below.path, "graph"))
        return Parts(None, inputs)
    graph = reading.known.graph(spec.graph)
    if graph is None:
        hint = nearest(spec.graph, reading.known.graphs)
        message = f"there is no graph {spec.graph}"
        reading.problem("unknown-graph", message, (*below.path, "graph"), hint=hint)
        return Parts(None, inputs)
    defaults = {name: value for name, value in graph.defaults.items() if value is not None}
    body = Body(graph.nodes, dict(graph.outputs), defaults=defaults)
    return Parts(replace(spec, ports=graph.inputs), inputs, {BODY: body})


READERS: Mapping[str, Callable[[NodeReader, Mapping[str, Any], Place, Names], Parts]] = {
    "map": _map,
    "loop": _loop,
    "branch": _branch,
    "router": _router,
    "agent": _agent,
    "subgraph": _subgraph,
}


def _any_body(
    reader: NodeReader, data: Mapping[str, Any], at: Place, seen: Names, others: tuple[str, ...]
) -> Body:
    """A body in a mapping: written in full, or as one node. `others` are what else may be in there."""
    reading = reader.reading
    if not data or any(field in data for field in BODY_FIELDS):
        for key in data:
            if key not in BODY_FIELDS:
                hint = nearest(key, (*BODY_FIELDS, *others))
                reading.problem(
                    "unknown-field", f"unknown field {key}", (*at.path, key), on_key=True, hint=hint
                )
        return _body(reader, data, at, seen)
    return _single(reader, data, at, seen, STEP)


def _body(reader: NodeReader, data: Mapping[str, Any], at: Place, seen: Names) -> Body:
    if data.get("nodes") is None:
        hint = "write nodes and outputs, or one node"
        reader.reading.problem("missing", "there is nothing to run", at.path, on_key=True, hint=hint)
        return Body({}, {})
    nodes = reader.nodes(data["nodes"], at, seen)
    return Body(nodes, reader.reading.bound(data.get("outputs", {}), (*at.path, "outputs")))


def _single(reader: NodeReader, data: Mapping[str, Any], at: Place, seen: Names, base: str) -> Body:
    name = single_name(base, seen)
    full = (*at.full, "nodes", name)
    reader.reading.moved[full] = at.path
    node = reader.node(data, Place(at.path, full), Names({name}, seen))
    if node is None:
        reader.reading.mark(at.full, name)
        return Body({}, {})
    return single(name, node)


def _entries(reading: Reading, settings: Any, field: str, at: Place) -> dict[str, dict[str, Any]]:
    """The choices or tools that are mappings."""
    data = settings.get(field) if isinstance(settings, dict) else None
    if data is None or not reading.is_mapping(data, (*at.path, field)):
        return {}
    return {name: entry for name, entry in data.items() if reading.is_mapping(entry, (*at.path, field, name))}


def _takes_no_with(reading: Reading, data: Mapping[str, Any], at: Place) -> None:
    if "with" in data:
        hint = "nodes inside refer to what is around them"
        reading.problem("unknown-field", "branch takes no with", (*at.path, "with"), on_key=True, hint=hint)


def _fields(struct: type[AgentTool] | type[Loop]) -> tuple[str, ...]:
    """What of a struct the author may write."""
    hidden = struct.set_when_read if issubclass(struct, Loop) else ()
    return tuple(name for name in struct.__struct_encode_fields__ if name not in hidden)
