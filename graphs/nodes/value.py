"""`value`: a constant, or a list or record put together from other values.

value: {question: "${inputs.question}", limit: 3}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from graphs.nodes.spec import NO_BODIES, BodyTypes, NodeSpec
from graphs.ports import ANY, Port, PortType


class Value(NodeSpec, frozen=True, tag_field="kind", tag="value"):
    summary: ClassVar[str] = "a constant, or a list or record put together from other values"
    cheap: ClassVar[bool] = True
    shorthand: ClassVar[str | None] = "value"

    def inputs(self) -> Mapping[str, Port]:
        return {"value": Port(ANY)}

    def outputs(
        self, given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"value": given.get("value", ANY)}
