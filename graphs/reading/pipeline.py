"""Plain data to `Pipeline`, part by part. Every part that is wrong becomes a `Problem` with its path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from graphs import bindings
from graphs.bindings import Ref
from graphs.errors import Path
from graphs.known import NOTHING_KNOWN, Known
from graphs.pipeline import API_VERSION, Chat, Context, Metadata, Pipeline, Policies
from graphs.ports import Port
from graphs.reading.base import Place, Reading
from graphs.reading.nodes import Nodes, read_cache
from graphs.sugar import Names

_TOP = ("apiVersion", "kind", "metadata", "inputs", "context", "nodes", "outputs", "chat", "policies")
_OUTPUT_FIELDS = ("from", "default", "optional")
_WHOLE: Path = ()

StructT = TypeVar("StructT", bound=msgspec.Struct)


def read_pipeline(data: Any, known: Known = NOTHING_KNOWN) -> tuple[Pipeline | None, Reading]:
    """What could be read, None where the whole is no pipeline, and what was wrong. Never raises for what
    `data` says."""
    reading = Reading(known)
    return _Reader(reading).pipeline(data), reading


class _Reader:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def pipeline(self, data: Any) -> Pipeline | None:
        reading = self._reading
        if not reading.is_mapping(data, _WHOLE):
            return None
        reading.known_fields(data, _TOP, _WHOLE)
        for field, value in (("apiVersion", API_VERSION), ("kind", "Pipeline")):
            if data.get(field) != value:
                reading.problem("bad-value", f"{field} must be {value}", (field,))
        metadata = self._metadata(data.get("metadata"))
        if metadata is None:
            reading.mark(_WHOLE, "metadata")
        given = data.get("nodes")
        if given is None:
            reading.problem("missing", "a pipeline needs nodes", ("nodes",))
        nodes = Nodes(reading).nodes({} if given is None else given, Place((), ()), Names())
        outputs = {
            name: ref
            for name, body in self._entries(data, "outputs")
            if (ref := self._output(name, body)) is not None
        }
        defaults = {
            name: body.get("default")
            for name, body in self._entries(data, "outputs", required=False)
            if name in outputs and isinstance(body, dict) and len(body) > 1
        }
        inputs = {
            name: port
            for name, body in self._entries(data, "inputs", required=False)
            if (port := self._input(name, body)) is not None
        }
        return Pipeline(
            metadata=metadata or Metadata(""),
            nodes=nodes,
            outputs=outputs,
            inputs=inputs,
            context=self._section(data, "context", Context) or Context(),
            chat=self._section(data, "chat", Chat),
            policies=self._policies(data),
            defaults=defaults,
        )

    def _metadata(self, data: Any) -> Metadata | None:
        if data is None:
            self._reading.problem("missing", "a pipeline needs metadata with a name", ("metadata",))
            return None
        return self._reading.struct(data, Metadata, ("metadata",))

    def _section(self, data: dict[str, Any], name: str, into: type[StructT]) -> StructT | None:
        return self._reading.struct(data[name], into, (name,)) if data.get(name) is not None else None

    def _policies(self, data: dict[str, Any]) -> Policies:
        reading, body = self._reading, data.get("policies")
        if body is None:
            return Policies()
        policies = reading.struct(
            body, Policies, ("policies",), hidden=("deadline_s", "cache"), beside=("deadline", "cache")
        )
        if policies is None:
            return Policies()
        if "deadline" in body:
            deadline_s = reading.duration(body["deadline"], ("policies", "deadline"))
            policies = msgspec.structs.replace(policies, deadline_s=deadline_s)
        if body.get("cache") is not None:
            cache = read_cache(reading, body["cache"], ("policies", "cache"))
            policies = msgspec.structs.replace(policies, cache=cache)
        return policies

    def _input(self, name: str, body: Any) -> Port | None:
        port = self._reading.port(body, ("inputs", name))
        if port is None:
            self._reading.mark(_WHOLE, f"{bindings.INPUTS}.{name}")
        return port

    def _output(self, name: str, body: Any) -> Ref | None:
        reading = self._reading
        path: Path = ("outputs", name)
        if isinstance(body, dict) and "from" in body:
            reading.known_fields(body, _OUTPUT_FIELDS, path)
            if body.get("optional", True) is not True:
                reading.problem("bad-value", "optional is true or not there", (*path, "optional"))
            elif "optional" in body and "default" in body:
                reading.problem("bad-value", "an output is optional or has a default", (*path, "default"))
            body, path = body["from"], (*path, "from")
        binding = reading.binding(body, path)
        if isinstance(binding, Ref):
            return binding
        reading.mark(_WHOLE, f"outputs.{name}")
        if binding is None:
            return None
        hint = "put it together in a value node"
        reading.problem("bad-reference", "an output is a reference", path, hint=hint)
        return None

    def _entries(
        self, data: dict[str, Any], section: str, *, required: bool = True
    ) -> Iterable[tuple[str, Any]]:
        body = data.get(section)
        if body is None:
            if required:
                self._reading.problem("missing", f"a pipeline needs {section}", (section,))
            return ()
        return list(body.items()) if self._reading.is_mapping(body, (section,)) else ()
