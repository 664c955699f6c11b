"""`approval`: a person looks at a value and says yes or no.

    approval: {message: May this be sent?}
    with: {value: "${write.text}"}
    timeout: 10m

The run waits, within its deadline and the node's time-out. The person may give another value of the same type
in place of the one shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, NodeSpec
from graphs.ports import ANY, BOOLEAN, STRING, Port, PortType, optional


class Approval(NodeSpec, frozen=True, tag_field="kind", tag="approval"):
    summary: ClassVar[str] = "waits for a person to look at a value and decide"

    message: Annotated[str, Meta(min_length=1, max_length=2_000)]
    """What the person is asked."""

    def inputs(self) -> Mapping[str, Port]:
        return {"value": Port(ANY, default=None, description="what the person looks at")}

    def outputs(
        self, given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return {"value": given.get("value", ANY), "approved": BOOLEAN, "comment": optional(STRING)}

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        return {"value": value, "approved": False, "comment": None}

    @property
    def effects(self) -> Effects:
        return "effectful"
