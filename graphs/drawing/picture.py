"""What every drawing of a pipeline shows: boxes and arrows, whatever they are written in."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from graphs.bindings import CONTEXT, INPUTS, Binding, Ref, references
from graphs.conditions import references_of
from graphs.inference import Typed, typed
from graphs.nodes.map import BODY
from graphs.pipeline import Node, NodeId, Pipeline
from graphs.ports import PortType

Role = Literal["input", "context", "node", "output"]


class Box(msgspec.Struct, frozen=True):
    id: str
    """Letters, digits and `_` only, unlike the title."""
    title: str
    role: Role
    lines: tuple[str, ...] = ()
    """Below the title: the kind, where it runs."""
    group: str | None = None
    """Boxes of one group run as one step."""
    calls_model: bool = False
    critical: bool = False
    heat: int | None = None
    """How long it took, as a step of the scale; absent where nothing was measured."""
    skipped: bool = False
    """Whether the measured run went past it."""
    inside: tuple[Picture, ...] = ()
    """The nodes inside it: a picture of each body, with what only the body sees as its inputs."""


class Arrow(msgspec.Struct, frozen=True):
    source: str
    """Id of a box."""
    target: str
    label: str = ""
    data: bool = True
    """Whether a value flows; else it is order or a condition."""
    critical: bool = False
    live: bool = False
    """Whether the value is read while it is made."""


class Picture(msgspec.Struct, frozen=True):
    title: str
    """Of a body: the case, choice or tool that it is of; empty where there is only one."""
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    def everything(self) -> Iterator[Box]:
        """Every box, those inside others too."""
        for box in self.boxes:
            yield box
            for inner in box.inside:
                yield from inner.everything()


class NodeLook(msgspec.Struct, frozen=True):
    """A node as it is to be drawn, at whatever stage it is."""

    kind: str
    inputs: Iterable[Binding]
    """What it takes, its bodies included."""
    looks_at: Iterable[Ref] = ()
    """What its conditions refer to."""
    after: Iterable[str] = ()
    follows: Container[str] = ()
    """Nodes of which it reads what they give while they run."""
    lines: tuple[str, ...] = ()
    group: str | None = None
    calls_model: bool = False
    critical: bool = False
    bodies: Mapping[str, ScopeLook] = {}


class ScopeLook(msgspec.Struct, frozen=True):
    """Nodes that see each other, as they are to be drawn."""

    nodes: Mapping[NodeId, NodeLook]
    outputs: Mapping[str, Binding]
    types: Mapping[Ref, PortType]
    """Of what they refer to, where known."""
    own: Iterable[str] = ()
    """What only they see, as the item of a map."""


def picture_of(pipeline: Pipeline) -> Picture:
    """A pipeline as it was written. It must be one without problems."""
    types = typed(pipeline)
    return assemble(pipeline, ScopeLook(_looks(pipeline.nodes, types), pipeline.outputs, types.refs))


def _looks(nodes: Mapping[NodeId, Node], types: Typed) -> dict[NodeId, NodeLook]:
    looks = {}
    for node_id, node in nodes.items():
        bodies = {
            key: ScopeLook(
                _looks(body.nodes, types.bodies[node_id][key]),
                body.outputs,
                types.bodies[node_id][key].refs,
                tuple(node.spec.locals(key, {})),
            )
            for key, body in node.bodies.items()
        }
        looks_at = [*references_of(node.when)]
        looks_at += [ref for body in node.bodies.values() for ref in references_of(body.when)]
        looks[node_id] = NodeLook(
            node.kind,
            [*node.inputs.values(), *captured(bodies)],
            looks_at,
            node.after,
            calls_model=any(use.resource == "model" for use in node.spec.uses()),
            bodies=bodies,
        )
    return looks


def captured(bodies: Mapping[str, ScopeLook]) -> Iterator[Ref]:
    """What bodies take of what is around them."""
    for body in bodies.values():
        inner = {*body.nodes, *body.own}
        yield from (ref for ref in _taken(body) if ref.owner not in inner)


def _taken(scope: ScopeLook) -> Iterator[Ref]:
    for look in scope.nodes.values():
        for binding in look.inputs:
            yield from references(binding)
        yield from look.looks_at
    for binding in scope.outputs.values():
        yield from references(binding)


def assemble(pipeline: Pipeline, look: ScopeLook) -> Picture:
    """The picture of what is between the inputs and the outputs of a pipeline."""
    boxes = [Box(f"i_{index}", name, "input") for index, name in enumerate(pipeline.inputs)]
    boxes += [Box(f"c_{index}", name, "context") for index, name in enumerate(pipeline.context.reads)]
    places = {Ref(INPUTS, name): f"i_{index}" for index, name in enumerate(pipeline.inputs)}
    places |= {Ref(CONTEXT, name): f"c_{index}" for index, name in enumerate(pipeline.context.reads)}
    title = f"{pipeline.metadata.name} {pipeline.metadata.version}"
    return _picture(title, look, boxes, places, "", "")


def _body(look: ScopeLook, key: str, begin: str, path: str) -> Picture:
    taken = list(dict.fromkeys(_taken(look)))
    own = [name for name in look.own if any(ref.owner == name for ref in taken)]
    ids = {name: f"{begin}i_{index}" for index, name in enumerate(own)}
    places = {ref: ids[ref.owner] for ref in taken if ref.owner in ids}
    boxes = [Box(ids[name], name, "input") for name in own]
    return _picture("" if key == BODY else key, look, boxes, places, begin, path)


def _picture(
    title: str, scope: ScopeLook, boxes: list[Box], places: Mapping[Ref, str], begin: str, path: str
) -> Picture:
    """The picture of one scope. `places` has the boxes of what is not of its nodes; `begin` and `path` are
    what the ids and the titles of its boxes begin with."""
    ids = {name: f"{begin}n{index}" for index, name in enumerate(scope.nodes)}
    boxes = [*boxes, *(_box(ids[name], path + name, look) for name, look in scope.nodes.items())]
    boxes += [Box(f"{begin}o_{index}", name, "output") for index, name in enumerate(scope.outputs)]

    def source(ref: Ref) -> str | None:
        return places.get(ref) or ids.get(NodeId(ref.owner))

    def label(ref: Ref) -> str:
        port_type = str(scope.types.get(ref, ""))
        if ref in places and not begin:
            return port_type
        return f"{ref.port}: {port_type}" if port_type else ref.port

    arrows: list[Arrow] = []
    for name, look in scope.nodes.items():
        for ref in dict.fromkeys(ref for binding in look.inputs for ref in references(binding)):
            owner = scope.nodes.get(NodeId(ref.owner))
            critical = owner is not None and owner.critical and look.critical
            live = ref.owner in look.follows
            arrows += _arrow(source(ref), ids[name], label(ref), critical=critical, live=live)
        for ref in dict.fromkeys(look.looks_at):
            arrows += _arrow(source(ref), ids[name], f"when {ref.port}", data=False)
        for other in look.after:
            arrows += _arrow(ids[NodeId(other)], ids[name], data=False)
    for index, binding in enumerate(scope.outputs.values()):
        for ref in dict.fromkeys(references(binding)):
            arrows += _arrow(source(ref), f"{begin}o_{index}", label(ref))
    return Picture(title, tuple(boxes), tuple(arrows))


def _box(box_id: str, path: str, look: NodeLook) -> Box:
    inside = tuple(
        _body(body, key, f"{box_id}_{index}_", f"{path}." if key == BODY else f"{path}.{key}.")
        for index, (key, body) in enumerate(look.bodies.items())
    )
    return Box(
        box_id,
        path,
        "node",
        (look.kind, *look.lines),
        look.group,
        look.calls_model,
        look.critical,
        inside=inside,
    )


def _arrow(
    source: str | None,
    target: str,
    label: str = "",
    *,
    data: bool = True,
    critical: bool = False,
    live: bool = False,
) -> list[Arrow]:
    """None where what is taken comes from around the picture: there it goes to the box that this is in."""
    return [] if source is None else [Arrow(source, target, label, data, critical, live)]
