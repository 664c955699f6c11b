"""`Pipeline` to YAML: what `loader` reads back as an equal pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from graphs import bindings
from graphs.bindings import Ref
from graphs.nodes.agent import ARGS, Agent, AgentTool
from graphs.nodes.branch import Branch
from graphs.nodes.function import Function
from graphs.nodes.loop import Loop
from graphs.nodes.map import BODY, Map
from graphs.nodes.router import Router
from graphs.pipeline import API_VERSION, Body, Node, NodeId, Pipeline
from graphs.ports import Port
from graphs.sugar import EACH, STEP, Names, only_node
from graphs.yaml_tree import plain


def to_yaml(pipeline: Pipeline) -> str:
    """Block style, in the order of the pipeline, texts of several lines below a `|`."""
    return yaml.dump(to_data(pipeline), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def to_data(pipeline: Pipeline) -> dict[str, Any]:
    """The plain data of the YAML. Sections with nothing but defaults are left out."""
    data: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "Pipeline",
        "metadata": msgspec.to_builtins(pipeline.metadata),
        "inputs": {name: _port(port) for name, port in pipeline.inputs.items()},
        "context": _lists(msgspec.to_builtins(pipeline.context)),
        "nodes": _nodes(pipeline.nodes, Names()),
        "outputs": {name: _output(name, ref, pipeline) for name, ref in pipeline.outputs.items()},
        "chat": msgspec.to_builtins(pipeline.chat),
        "policies": _policies(msgspec.to_builtins(pipeline.policies)),
    }
    return {name: section for name, section in data.items() if section}


def _port(port: Port) -> Any:
    data: dict[str, Any] = {"type": str(port.type)}
    if port.default is not msgspec.UNSET:
        data["default"] = port.default
    if port.description:
        data["description"] = port.description
    data |= port.constraints
    return data["type"] if len(data) == 1 else data


def _output(name: str, ref: Ref, pipeline: Pipeline) -> Any:
    if name not in pipeline.defaults:
        return str(ref)
    default = pipeline.defaults[name]
    return {"from": str(ref)} | ({"optional": True} if default is None else {"default": default})


def _node(node: Node, seen: Names) -> dict[str, Any]:
    inputs = {port: bindings.render(binding) for port, binding in node.inputs.items()}
    data: dict[str, Any]
    if node.spec.shorthand is not None:
        data = {node.kind: inputs.get(node.spec.shorthand)}
    else:
        settings = {name: inputs.pop(name) for name in node.spec.among_settings if name in inputs}
        data = {node.kind: settings | _settings(node), "with": inputs}
    match node.spec:
        case Map():
            _write_map(data, node.bodies[BODY], Names({node.spec.as_}, seen))
        case Loop():
            _write_body(data["loop"], node.bodies[BODY], Names({node.spec.as_}, seen))
        case Branch():
            data["branch"] = [_case(node.bodies[str(index)], seen) for index in range(len(node.bodies))]
        case Router(choices=choices):
            data["router"]["choices"] = {
                name: _write_body({"description": text}, node.bodies[name], seen)
                for name, text in choices.items()
            }
        case Function(call=call):
            data["function"] = call
        case Agent(tools=tools):
            data["agent"]["tools"] = {
                name: _write_body(_tool(tool), node.bodies[name], Names({ARGS}, seen))
                for name, tool in tools.items()
            }
        case _:
            pass
    data |= _treatment(node)
    return {name: value for name, value in data.items() if value != {} or name != "with"}


def _settings(node: Node) -> dict[str, Any]:
    """The fields of a kind that its author writes."""
    spec = node.spec
    data = _lists(msgspec.to_builtins(spec))
    if spec.template_field is not None and data.get("use") is not None:
        data[spec.template_field] = data["use"]
        data.pop("template", None)
    return {name: value for name, value in data.items() if name not in ("kind", *node.spec.set_when_read)}


def _treatment(node: Node) -> dict[str, Any]:
    """What stands beside the kind, where it is not the default."""
    data: dict[str, Any] = {}
    if node.after:
        data["after"] = list(node.after)
    if node.when is not None:
        data["when"] = node.when
    if node.retry is not None:
        data["retry"] = _lists(msgspec.to_builtins(node.retry))
    if node.timeout_s is not None:
        data["timeout"] = node.timeout_s
    if node.fallback:
        data["fallback"] = [msgspec.to_builtins(fallback) for fallback in node.fallback]
    if node.effects is not None:
        data["effects"] = node.effects
    if node.cache is not None:
        data["cache"] = msgspec.to_builtins(node.cache)
    return data


def _write_map(data: dict[str, Any], body: Body, seen: Names) -> None:
    """The one node of a map stands beside it, where nothing there would be taken for the map's own."""
    node = only_node(body, EACH, seen)
    if node is None or node.kind == "map" or _treatment(node):
        data["map"] |= _body(body, seen)
    else:
        data |= _node(node, Names(body.nodes, seen))


def _write_body(data: dict[str, Any], body: Body, seen: Names) -> dict[str, Any]:
    """Adds a body to the mapping that it stands in."""
    node = only_node(body, STEP, seen)
    data |= _body(body, seen) if node is None else _node(node, Names(body.nodes, seen))
    if body.until is not None:
        data["until"] = body.until
    return data


def _case(body: Body, seen: Names) -> dict[str, Any]:
    return _write_body({} if body.when is None else {"when": body.when}, body, seen)


def _tool(tool: AgentTool) -> dict[str, Any]:
    inputs = {name: _port(port) for name, port in tool.inputs.items()}
    return {"description": tool.description} | ({"inputs": inputs} if inputs else {})


def _body(body: Body, seen: Names) -> dict[str, Any]:
    outputs = {name: bindings.render(binding) for name, binding in body.outputs.items()}
    return {"nodes": _nodes(body.nodes, seen)} | ({"outputs": outputs} if outputs else {})


def _nodes(nodes: Mapping[NodeId, Node], seen: Names) -> dict[str, Any]:
    inner = Names(nodes, seen)
    return {node_id: _node(node, inner) for node_id, node in nodes.items()}


def _policies(data: dict[str, Any]) -> dict[str, Any]:
    if "deadline_s" in data:
        data["deadline"] = data.pop("deadline_s")
    return data


def _lists(data: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in data.items()}


_OTHER_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Line ends to YAML, letters to JSON: only between double quotes do they stay what they are."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes texts of several lines as people would, and nothing as an alias."""

    def ignore_aliases(self, _data: Any, /) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None if isinstance(plain(text), str) else "'"
    if _OTHER_BREAKS.search(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
