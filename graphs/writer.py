"""`Pipeline` to YAML: what `loader` reads back as an equal pipeline."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml

from graphs import bindings
from graphs.bindings import Ref
from graphs.pipeline import API_VERSION, Node, Pipeline
from graphs.ports import Port
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
        "nodes": {node_id: _node(node) for node_id, node in pipeline.nodes.items()},
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


def _node(node: Node) -> dict[str, Any]:
    inputs = {port: bindings.render(binding) for port, binding in node.inputs.items()}
    data: dict[str, Any]
    if node.spec.shorthand is not None:
        data = {node.kind: inputs.get(node.spec.shorthand)}
    else:
        spec = _lists(msgspec.to_builtins(node.spec))
        del spec["kind"]
        data = {node.kind: spec, "with": inputs} if inputs else {node.kind: spec}
    if node.after:
        data["after"] = list(node.after)
    if node.when is not None:
        data["when"] = node.when
    return data


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
