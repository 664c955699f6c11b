"""`prompt`: a text made from a template and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Fault, NodeSpec
from graphs.ports import ANY, STRING, Port, PortType
from graphs.templates import MAX_TEMPLATE_CHARS, TemplateRefused, compile_template


class Prompt(NodeSpec, frozen=True, tag_field="kind", tag="prompt"):
    summary: ClassVar[str] = "fills a template; its variables are the node's input ports"
    cheap: ClassVar[bool] = True
    open_inputs: ClassVar[bool] = True

    template: Annotated[str, Meta(max_length=MAX_TEMPLATE_CHARS)]
    """Jinja2, without calls, assignments and macros; see `graphs.templates`."""

    def inputs(self) -> Mapping[str, Port]:
        return {name: Port(ANY) for name in self.variables()}

    def variables(self) -> Mapping[str, tuple[str, int]]:
        try:
            lines = compile_template(self.template).variables
        except TemplateRefused as refused:
            lines = refused.variables
        return {name: ("template", line) for name, line in lines.items()}

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"text": STRING}

    def faults(self) -> Sequence[Fault]:
        try:
            compile_template(self.template)
        except TemplateRefused as refused:
            return [
                Fault("bad-template", fault.message, "template", fault.line, fault.token, fault.hint)
                for fault in refused.faults
            ]
        return ()
