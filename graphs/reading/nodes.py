"""Plain data to nodes: their kind, what they are given, and how they are treated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphs.bindings import located
from graphs.errors import Path, nearest
from graphs.nodes.map import Map
from graphs.nodes.registry import KINDS
from graphs.nodes.spec import EFFECTS, Effects
from graphs.pipeline import Cache, Fallback, Node, NodeId, Retry
from graphs.reading.base import Loose, Place, Reading
from graphs.reading.bodies import READERS, Parts
from graphs.reading.functions import read_function
from graphs.reading.prompts import template_settings
from graphs.reading.tools import read_tool
from graphs.sugar import Names

POLICIES = ("retry", "timeout", "fallback", "effects", "cache")
NODE_FIELDS = ("with", "after", "when", *POLICIES)
"""What a node may have beside its kind."""


_READERS = {**READERS, "function": read_function, "tool": read_tool}


class Nodes:
    """Reads nodes, and the nodes inside them."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def nodes(self, data: Any, at: Place, seen: Names) -> dict[NodeId, Node]:
        """The nodes that stand under `nodes` in the pipeline or body that stands at `at`."""
        reading = self.reading
        if not reading.is_mapping(data, (*at.path, "nodes")):
            return {}
        inner = Names(data, seen)
        found: dict[NodeId, Node] = {}
        for name, value in data.items():
            before = len(reading.problems)
            node = self.node(value, at.down("nodes", name), inner)
            if node is not None:
                found[NodeId(name)] = node
            if len(reading.problems) > before:
                reading.mark(at.full, name)
        return found

    def node(self, data: Any, at: Place, seen: Names) -> Node | None:
        """One node; None, its references noted as loose, where it cannot be read."""
        reading = self.reading
        if not reading.is_mapping(data, at.path):
            return None
        kind = self._kind(data, at.path)
        after = self._after(data.get("after", []), (*at.path, "after"))
        when = reading.condition(data["when"], (*at.path, "when")) if "when" in data else None
        retry = (
            reading.struct(data["retry"], Retry, (*at.path, "retry"))
            if data.get("retry") is not None
            else None
        )
        timeout = reading.duration(data["timeout"], (*at.path, "timeout")) if "timeout" in data else None
        fallback = self._fallback(data.get("fallback", []), (*at.path, "fallback"))
        effects = self._effects(data, at.path)
        cache = (
            read_cache(reading, data["cache"], (*at.path, "cache")) if data.get("cache") is not None else None
        )
        if kind is None:
            return None
        read = _READERS.get(kind)
        parts = self._leaf(kind, data, at.path) if read is None else read(self, data, at, seen)
        if parts.spec is not None:
            return Node(
                parts.spec, parts.inputs, after, when, parts.bodies, retry, timeout, fallback, effects, cache
            )
        for port, binding in parts.inputs.items():
            body = at.full[:-2]
            reading.loose += (
                Loose(body, path, ref) for path, ref in located(binding, (*at.path, "with", port))
            )
        return None

    def _kind(self, data: Mapping[str, Any], path: Path) -> str | None:
        """The one key that names a kind; of the two of a map with its node beside it, `map`."""
        kinds = [key for key in data if key in KINDS]
        others = [key for key in data if key not in KINDS and key not in NODE_FIELDS]
        if not kinds and len(others) == 1:
            hint = nearest(others[0], KINDS)
            message = f"unknown kind {others[0]}"
            self.reading.problem("unknown-kind", message, (*path, others[0]), on_key=True, hint=hint)
            return None
        for key in others:
            hint = nearest(key, [*KINDS, *NODE_FIELDS])
            self.reading.problem(
                "unknown-field", f"unknown field {key}", (*path, key), on_key=True, hint=hint
            )
        if len(kinds) == 2 and Map.kind() in kinds:
            return Map.kind()
        if len(kinds) != 1:
            said = " and ".join(kinds) or "none"
            message = f"a node has one kind, this one has {said}"
            self.reading.problem("bad-value", message, path, on_key=True)
            return None
        return kinds[0]

    def _leaf(self, kind: str, data: Mapping[str, Any], path: Path) -> Parts:
        """A node of a kind without bodies."""
        reading, spec_type = self.reading, KINDS[kind]
        if spec_type.shorthand is not None:
            binding = reading.binding(data[kind], (*path, kind))
            if "with" in data:
                reading.problem("unknown-field", f"{kind} takes no with", (*path, "with"), on_key=True)
            return Parts(
                spec_type(),  # type: ignore[call-arg]
                {} if binding is None else {spec_type.shorthand: binding},
            )
        inputs = reading.bound(data.get("with", {}), (*path, "with"))
        settings = data[kind]
        found = template_settings(reading, spec_type, settings, (*path, kind))
        if found is None:
            return Parts(None, inputs)
        hidden = spec_type.set_when_read - found.keys()
        if found:
            settings = {**settings, **found}
        return Parts(reading.struct(settings, spec_type, (*path, kind), hidden=hidden), inputs)

    def _after(self, data: Any, path: Path) -> tuple[NodeId, ...]:
        if not isinstance(data, list):
            hint = f"write [{data}]" if isinstance(data, str) else None
            self.reading.problem("bad-value", "expected a list of names of nodes", path, hint=hint)
            return ()
        for index, item in enumerate(data):
            if not isinstance(item, str):
                self.reading.problem("bad-value", "expected the name of a node", (*path, index))
        return tuple(NodeId(item) for item in data if isinstance(item, str))

    def _fallback(self, data: Any, path: Path) -> tuple[Fallback, ...]:
        if not isinstance(data, list):
            self.reading.problem("bad-value", "expected a list, as [{model: small}, {value: …}]", path)
            return ()
        read = []
        for index, item in enumerate(data):
            before = len(self.reading.problems)
            fallback = self.reading.struct(item, Fallback, (*path, index))
            if fallback is not None and len(self.reading.problems) == before:
                read.append(fallback)
        return tuple(read)

    def _effects(self, data: Mapping[str, Any], path: Path) -> Effects | None:
        said = data.get("effects")
        for effects in EFFECTS:
            if said == effects:
                return effects
        if said is not None:
            self.reading.problem("bad-value", "expected " + ", ".join(EFFECTS), (*path, "effects"))
        return None


def read_cache(reading: Reading, data: Any, path: Path) -> Cache | None:
    """A cache that stands at `path`; None where it cannot be read."""
    if not isinstance(data, dict) or "ttl" not in data:
        return reading.struct(data, Cache, path)
    ttl_s = reading.duration(data["ttl"], (*path, "ttl"))
    return None if ttl_s is None else reading.struct(data, Cache, path, given={"ttl": ttl_s})
