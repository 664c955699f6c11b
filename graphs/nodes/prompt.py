"""`prompt`: a text made from a template and values.

    prompt: {template: "Answer in one sentence: {{ question }}"}
    with: {question: "${inputs.question}"}

With `use: prompts/answer@stable` the template is that of a prompt file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Fault, NodeSpec
from graphs.nodes.templated import template_faults, template_ports, template_variables
from graphs.ports import STRING, Port, PortType
from graphs.templates import MAX_TEMPLATE_CHARS, Outline, outline


class Prompt(NodeSpec, frozen=True, dict=True, tag_field="kind", tag="prompt"):
    summary: ClassVar[str] = "fills a template; its variables are the node's input ports"
    cheap: ClassVar[bool] = True
    open_inputs: ClassVar[bool] = True
    template_field: ClassVar[str | None] = "template"
    set_when_read: ClassVar[frozenset[str]] = frozenset({"version"})
    example: ClassVar[Mapping[str, Any]] = {"template": "x"}

    template: Annotated[str, Meta(max_length=MAX_TEMPLATE_CHARS)] = ""
    """Jinja2, without calls, assignments and macros; see `graphs.templates`."""
    use: str | None = None
    """In place of a template the prompt file that has it, as `prompts/answer@stable`."""
    version: str | None = None
    """Of that prompt. Set when it is read."""

    def inputs(self) -> Mapping[str, Port]:
        return template_ports(self._outline)

    def variables(self) -> Mapping[str, tuple[str, int]]:
        return {} if self.use is not None else template_variables(self._outline, "template")

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"text": STRING}

    def faults(self) -> Sequence[Fault]:
        if self.use is not None and self.version is None:
            return [Fault("unknown-prompt", f"{self.use[:80]} was never looked up", "use")]
        if not self.template:
            return [Fault("missing", "a prompt node needs a template, or a prompt file to use", "template")]
        return template_faults(self._outline, "template")

    @cached_property
    def _outline(self) -> Outline:
        """Kept, since every stage of a compilation asks for the ports."""
        return outline(self.template)
