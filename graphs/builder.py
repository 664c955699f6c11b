"""Pipelines written in Python: typed calls that make the same frozen `Pipeline` as YAML does.

b = Builder("support-rag", version="1.0.0")
question = b.input("question", STRING)
vector = b.add("vector", Embed(model="minilm"), text=question)
hits = b.add("hits", Retrieve(index="manual"), embedding=vector["embedding"], top_k=3)
hits.after(log)                                     # order without data
hits.when("size(inputs.question) > 3")              # else it is skipped
b.output("sources", hits["documents"])
pipeline = b.build()
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from graphs import validation
from graphs.bindings import CONTEXT, INPUTS, Binding, Items, Literal, Record, Ref
from graphs.errors import PipelineError, nearest
from graphs.nodes.registry import AnySpec
from graphs.nodes.value import Value
from graphs.pipeline import Chat, Context, Metadata, Node, NodeId, Pipeline, Policies
from graphs.ports import Port, PortType

StructT = TypeVar("StructT", bound=msgspec.Struct)


class Added:
    """A node that was added: `node["port"]` refers to one of its outputs."""

    def __init__(self, node_id: NodeId, nodes: dict[NodeId, Node]) -> None:
        self.node_id = node_id
        self._nodes = nodes
        self._ports = nodes[node_id].ports()

    def after(self, *others: Added) -> Added:
        """Makes the node wait for others of which it takes nothing. Gives the node itself."""
        node = self._nodes[self.node_id]
        names = (*node.after, *(other.node_id for other in others))
        self._nodes[self.node_id] = msgspec.structs.replace(node, after=names)
        return self

    def __getitem__(self, port: str) -> Ref:
        if port not in self._ports:
            hint = nearest(port, self._ports)
            raise KeyError(f"{self.node_id} has no output {port}" + (f"; {hint}" if hint else ""))
        return Ref(self.node_id, port)

    def when(self, condition: str) -> Added:
        """Skips the node where the condition, in CEL, does not hold. Gives the node itself."""
        node = self._nodes[self.node_id]
        self._nodes[self.node_id] = msgspec.structs.replace(node, when=condition)
        return self


class Builder:
    """Collects nodes; `build` checks the whole."""

    def __init__(
        self, name: str, *, version: str = "0.0.0", description: str = "", policies: Policies | None = None
    ) -> None:
        self._metadata = Metadata(name, version, description)
        self._policies = _normal(policies or Policies())
        self._inputs: dict[str, Port] = {}
        self._reads: list[str] = []
        self._nodes: dict[NodeId, Node] = {}
        self._outputs: dict[str, Ref] = {}
        self._defaults: dict[str, Any] = {}
        self._chat: Chat | None = None

    def input(
        self,
        name: str,
        port_type: PortType,
        *,
        default: Any = UNSET,
        description: str = "",
        **constraints: Any,
    ) -> Ref:
        """Declares an input. `constraints` are JSON Schema's keywords, as `minimum=1`."""
        self._inputs[name] = Port(port_type, default, description, constraints)
        return Ref(INPUTS, name)

    def context(self, field: str) -> Ref:
        """Declares that the pipeline reads a field of the context, as `sessionHistory`."""
        if field not in self._reads:
            self._reads.append(field)
        return Ref(CONTEXT, field)

    def add(self, name: str, spec: AnySpec, /, **inputs: Any) -> Added:
        """Adds a node. Inputs are references, constants, or lists and dictionaries of both.

        Raises `ValueError` where there is a node of that name, `TypeError` for what JSON does not have and
        `msgspec.ValidationError` for a spec with a field out of its bounds.
        """
        node_id = NodeId(name)
        if node_id in self._nodes:
            raise ValueError(f"there is a node {name} already")
        self._nodes[node_id] = Node(_normal(spec), {port: _binding(value) for port, value in inputs.items()})
        return Added(node_id, self._nodes)

    def value(self, name: str, value: Any) -> Ref:
        """Adds a value node and refers to it."""
        return self.add(name, Value(), value=value)["value"]

    def output(self, name: str, ref: Ref, *, default: Any = UNSET) -> None:
        """Declares an output. `default` is its value where `ref` is absent; None makes it optional."""
        self._outputs[name] = ref
        if default is not UNSET:
            self._defaults[name] = default

    def chat(self, *, input: str, output: str) -> None:  # noqa: A002 — the name it has in YAML
        self._chat = Chat(input, output)

    def build(self) -> Pipeline:
        """The pipeline. Raises `PipelineError` with every mistake."""
        pipeline = Pipeline(
            metadata=self._metadata,
            nodes=dict(self._nodes),
            outputs=dict(self._outputs),
            inputs=dict(self._inputs),
            context=Context(tuple(self._reads)),
            chat=self._chat,
            policies=self._policies,
            defaults=dict(self._defaults),
        )
        problems = validation.check(pipeline)
        if any(problem.severity == "error" for problem in problems):
            raise PipelineError(problems)
        return pipeline


def _normal(struct: StructT) -> StructT:
    """The same, checked, and with the very values that reading it from YAML gives."""
    return msgspec.convert(msgspec.to_builtins(struct), type(struct))


def _binding(value: Any) -> Binding:
    if isinstance(value, Ref):
        return value
    if isinstance(value, list | tuple):
        items = tuple(_binding(item) for item in value)
        constants = [item.value for item in items if isinstance(item, Literal)]
        return Literal(constants) if len(constants) == len(items) else Items(items)
    if isinstance(value, dict):
        fields = {str(name): _binding(item) for name, item in value.items()}
        values = {name: field.value for name, field in fields.items() if isinstance(field, Literal)}
        return Literal(values) if len(values) == len(fields) else Record(fields)
    if value is None or isinstance(value, str | bool) or _is_number(value):
        return Literal(value)
    raise TypeError(f"{value!r:.80} is neither a reference nor a value that JSON has")


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)
