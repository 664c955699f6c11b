"""Pipelines made by programs: nodes recorded one by one become the same frozen `Pipeline` as YAML does.

b = Builder("support-rag", version="1.0.0")
question = b.input("question", STRING)
vector = b.add("vector", Embed(model="minilm"), text=question)
hits = b.add("hits", Retrieve(index="manual"), embedding=vector.embedding, top_k=3)
hits.after(log)                                     # order without data
hits.when("size(inputs.question) > 3")              # else it is skipped
b.output("sources", hits.documents)
pipeline = b.build()

People write `graphs.python` instead, which traces a function with the same means. Nodes get their names only
when the pipeline is built, so nothing that is recorded can clash with what comes after it.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from graphs import validation
from graphs.errors import PipelineError
from graphs.naming import Names
from graphs.nodes.registry import AnySpec
from graphs.nodes.value import Value
from graphs.pipeline import Chat, Context, Metadata, Pipeline, Policies
from graphs.ports import Port, PortType
from graphs.recording import Reference, Root, Step, normal, only_output, reference_to


class Builder:
    """Collects nodes; `build` checks the whole."""

    def __init__(
        self, name: str, *, version: str = "0.0.0", description: str = "", policies: Policies | None = None
    ) -> None:
        self.scope = Root()
        self._metadata = Metadata(name, version, description)
        self._policies = normal(policies or Policies())
        self._inputs: dict[str, Port] = {}
        self._outputs: dict[str, Reference] = {}
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
    ) -> Reference:
        """Declares an input. `constraints` are JSON Schema's keywords, as `minimum=1`."""
        return self.port(name, Port(port_type, default, description, constraints))

    def port(self, name: str, port: Port) -> Reference:
        """Declares an input."""
        self._inputs[name] = port
        return Reference(self.scope.given, name)

    def context(self, field: str) -> Reference:
        """Declares that the pipeline reads a field of the context, as `sessionHistory`."""
        return self.scope.context(field)

    def add(self, name: str, spec: AnySpec, /, **inputs: Any) -> Step:
        """Records a node with a name. Raises as `Scope.record` does, and `ValueError` for a name that is
        taken."""
        return self.scope.record(spec, inputs).named(name)

    def value(self, name: str, value: Any) -> Reference:
        """Adds a value node and refers to it."""
        return only_output(self.add(name, Value(), value=value))

    def output(self, name: str, value: Reference | Step, *, default: Any = UNSET) -> None:
        """Declares an output. `default` is its value where `value` is absent; None makes it optional."""
        self._outputs[name] = reference_to(value)
        self.scope.seen(self._outputs[name])
        if default is not UNSET:
            self._defaults[name] = default

    def chat(self, *, input: str, output: str) -> None:  # noqa: A002 — the name it has in YAML
        self._chat = Chat(input, output)

    def build(self) -> Pipeline:
        """The pipeline. Raises `PipelineError` with every mistake."""
        names = Names(self.scope)
        pipeline = Pipeline(
            metadata=self._metadata,
            nodes=names.nodes(self.scope),
            outputs={name: names.ref(reference) for name, reference in self._outputs.items()},
            inputs=dict(self._inputs),
            context=Context(tuple(self.scope.reads)),
            chat=self._chat,
            policies=self._policies,
            defaults=dict(self._defaults),
        )
        problems = validation.check(pipeline)
        if any(problem.severity == "error" for problem in problems):
            raise PipelineError(problems)
        return pipeline
