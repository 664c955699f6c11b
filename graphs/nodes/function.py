"""`function`: a function of Python. Its inputs and outputs are those of its type hints.

function: my_package.text:shout
with: {text: "${inputs.text}"}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from graphs.nodes.spec import NO_BODIES, BodyTypes, Effects, NodeSpec
from graphs.ports import ANY, Port, PortType


class Function(NodeSpec, frozen=True, tag_field="kind", tag="function"):
    summary: ClassVar[str] = "calls a function of Python"
    example: ClassVar[Mapping[str, Any]] = {"call": "package.module:function"}
    open_inputs: ClassVar[bool] = True
    set_when_read: ClassVar[frozenset[str]] = frozenset({"takes", "gives", "declared", "num_cpus", "batch"})

    call: Annotated[str, Meta(min_length=3, max_length=256, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`package.module:function`. The function is marked with `graphs.functions.function`."""
    takes: Mapping[str, Port] = {}
    """Its inputs. Set when it is read."""
    gives: Mapping[str, PortType] = msgspec.field(default_factory=lambda: {"value": ANY})
    """Its outputs. Set when it is read."""
    declared: Effects = "effectful"
    """Its side effects, as its mark says. Set when it is read."""
    num_cpus: float | None = None
    """Cores of a process of its own, as its mark says. Set when it is read."""
    batch: bool = False
    """Whether calls of all runs meet in its batches, as its mark says. Set when it is read."""

    def inputs(self) -> Mapping[str, Port]:
        return self.takes

    def outputs(
        self, _given: Mapping[str, PortType], _bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        return self.gives

    def stand_in(self, value: Any, /) -> Mapping[str, Any] | None:
        if len(self.gives) == 1:
            return dict.fromkeys(self.gives, value)
        return value if isinstance(value, dict) and value.keys() == self.gives.keys() else None

    @property
    def effects(self) -> Effects:
        return self.declared

    @property
    def own_process(self) -> bool:
        return self.num_cpus is not None

    @property
    def batched(self) -> bool:
        return self.batch
