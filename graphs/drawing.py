"""A pipeline as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Mapping

from graphs.bindings import CONTEXT, INPUTS, Ref, references
from graphs.conditions import references_of
from graphs.pipeline import NodeId, Pipeline
from graphs.ports import PortType
from graphs.validation import output_types


def mermaid(pipeline: Pipeline) -> str:
    """Nodes with kinds, edges with port and type, `after` dotted. Inputs, context and outputs are rounded."""
    types = output_types(pipeline)
    lines = ["flowchart LR"]
    ids = {node_id: f"n{index}" for index, node_id in enumerate(pipeline.nodes)}
    lines += [f'  i_{name}(["{name}"])' for name in pipeline.inputs]
    lines += [f'  c_{name}(["{name}"])' for name in pipeline.context.reads]
    lines += [f'  {ids[name]}["{name}<br/>{node.kind}"]' for name, node in pipeline.nodes.items()]
    lines += [f'  o_{name}(["{name}"])' for name in pipeline.outputs]
    for name, node in pipeline.nodes.items():
        taken = dict.fromkeys(ref for binding in node.inputs.values() for ref in references(binding))
        for ref in taken:
            lines.append(f"  {_source(ref, ids)} -->|{_label(ref, pipeline, types)}| {ids[name]}")
        for ref in dict.fromkeys(references_of(node.when)):
            lines.append(f'  {_source(ref, ids)} -.->|"when {ref.port}"| {ids[name]}')
        lines += [f"  {ids[other]} -.-> {ids[name]}" for other in node.after]
    for output, ref in pipeline.outputs.items():
        lines.append(f"  {_source(ref, ids)} -->|{_label(ref, pipeline, types)}| o_{output}")
    return "\n".join(lines) + "\n"


def _source(ref: Ref, ids: dict[NodeId, str]) -> str:
    prefixes = {INPUTS: "i_", CONTEXT: "c_"}
    return prefixes[ref.owner] + ref.port if ref.owner in prefixes else ids[NodeId(ref.owner)]


def _label(ref: Ref, pipeline: Pipeline, types: dict[NodeId, Mapping[str, PortType]]) -> str:
    if ref.owner == INPUTS:
        return f'"{pipeline.inputs[ref.port].type}"'
    if ref.owner == CONTEXT:
        return '"context"'
    return f'"{ref.port}: {types[NodeId(ref.owner)][ref.port]}"'
