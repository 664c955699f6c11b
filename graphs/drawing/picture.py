"""What every drawing of a pipeline shows: boxes and arrows, whatever they are written in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from graphs.bindings import CONTEXT, INPUTS, Binding, Ref, references
from graphs.conditions import references_of
from graphs.inference import typed
from graphs.pipeline import NodeId, Pipeline
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


class Arrow(msgspec.Struct, frozen=True):
    source: str
    """Id of a box."""
    target: str
    label: str = ""
    data: bool = True
    """Whether a value flows; else it is order or a condition."""
    critical: bool = False


class Picture(msgspec.Struct, frozen=True):
    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


class NodeLook(msgspec.Struct, frozen=True):
    """A node as it is to be drawn, at whatever stage it is."""

    kind: str
    inputs: Iterable[Binding]
    looks_at: Iterable[Ref] = ()
    """What its condition refers to."""
    after: Iterable[str] = ()
    lines: tuple[str, ...] = ()
    group: str | None = None
    calls_model: bool = False
    critical: bool = False


def picture_of(pipeline: Pipeline) -> Picture:
    """A pipeline as it was written. It must be one without problems."""
    looks = {
        node_id: NodeLook(
            node.kind,
            node.inputs.values(),
            references_of(node.when),
            node.after,
            calls_model=any(use.resource == "model" for use in node.spec.uses()),
        )
        for node_id, node in pipeline.nodes.items()
    }
    return assemble(pipeline, looks, pipeline.outputs, typed(pipeline).refs)


def assemble(
    pipeline: Pipeline,
    looks: Mapping[NodeId, NodeLook],
    outputs: Mapping[str, Binding],
    types: Mapping[Ref, PortType],
) -> Picture:
    """The picture of `looks` between the inputs and the outputs of a pipeline."""
    ids = {name: f"n{index}" for index, name in enumerate(looks)}
    boxes = [Box(f"i_{index}", name, "input") for index, name in enumerate(pipeline.inputs)]
    boxes += [Box(f"c_{index}", name, "context") for index, name in enumerate(pipeline.context.reads)]
    places = {Ref(INPUTS, name): f"i_{index}" for index, name in enumerate(pipeline.inputs)}
    places |= {Ref(CONTEXT, name): f"c_{index}" for index, name in enumerate(pipeline.context.reads)}
    boxes += [
        Box(ids[name], name, "node", (look.kind, *look.lines), look.group, look.calls_model, look.critical)
        for name, look in looks.items()
    ]
    boxes += [Box(f"o_{index}", name, "output") for index, name in enumerate(outputs)]

    def source(ref: Ref) -> str:
        return places[ref] if ref in places else ids[NodeId(ref.owner)]

    def label(ref: Ref) -> str:
        return str(types[ref]) if ref in places else f"{ref.port}: {types[ref]}"

    arrows: list[Arrow] = []
    for name, look in looks.items():
        taken = dict.fromkeys(ref for binding in look.inputs for ref in references(binding))
        for ref in taken:
            owner = looks.get(NodeId(ref.owner))
            critical = owner is not None and owner.critical and look.critical
            arrows.append(Arrow(source(ref), ids[name], label(ref), critical=critical))
        asked = dict.fromkeys(ref for ref in look.looks_at)
        arrows += [Arrow(source(ref), ids[name], f"when {ref.port}", data=False) for ref in asked]
        arrows += [Arrow(ids[NodeId(other)], ids[name], data=False) for other in look.after]
    for index, binding in enumerate(outputs.values()):
        for ref in dict.fromkeys(references(binding)):
            arrows.append(Arrow(source(ref), f"o_{index}", label(ref)))
    return Picture(f"{pipeline.metadata.name} {pipeline.metadata.version}", tuple(boxes), tuple(arrows))
