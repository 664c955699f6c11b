"""Plain data to `tool` nodes: what they are given are the arguments of the tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphs.nodes.tool import Tool
from graphs.reading.base import Place
from graphs.reading.bodies import NodeReader, Parts
from graphs.sugar import Names


def read_tool(reader: NodeReader, data: Mapping[str, Any], at: Place, _seen: Names) -> Parts:
    reading = reader.reading
    inputs = reading.bound(data.get("with", {}), (*at.path, "with"))
    spec = reading.struct(data["tool"], Tool, at.down("tool").path, hidden=Tool.set_when_read)
    return Parts(None if spec is None else spec.taking(inputs), inputs)
