"""`prompt`: a text made from a template and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, ClassVar

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Fault, NodeSpec
from graphs.nodes.templated import template_faults, template_ports, template_variables
from graphs.ports import STRING, Port, PortType
from graphs.templates import MAX_TEMPLATE_CHARS, Outline, outline


class Prompt(NodeSpec, frozen=True, dict=True, tag_field="kind", tag="prompt"):
    summary: ClassVar[str] = "fills a template; its variables are the node's input ports"
    cheap: ClassVar[bool] = True
    open_inputs: ClassVar[bool] = True

    template: Annotated[str, Meta(max_length=MAX_TEMPLATE_CHARS)]
    """Jinja2, without calls, assignments and macros; see `graphs.templates`."""

    def inputs(self) -> Mapping[str, Port]:
        return template_ports(self._outline)

    def variables(self) -> Mapping[str, tuple[str, int]]:
        return template_variables(self._outline, "template")

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"text": STRING}

    def faults(self) -> Sequence[Fault]:
        return template_faults(self._outline, "template")

    @cached_property
    def _outline(self) -> Outline:
        """Kept, since every stage of a compilation asks for the ports."""
        return outline(self.template)
