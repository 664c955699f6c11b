"""`loop`: its body runs again and again, on what the pass before has left, until a condition holds.

    loop:
      max_iterations: 4
      until: judge.label == "good"
      nodes:
        rewrite: {llm: {model: smollm2, prompt: "Better: {{ text }}"}, with: {text: "${state.draft}"}}
        judge:
          classify: {model: minilm, labels: {good: clear and short, bad: hard to read}}
          with: {text: "${rewrite.text}"}
      outputs: {draft: "${rewrite.text}"}
    with: {draft: "${first.text}"}

`with` is the state that it starts with, which the body sees as `${state.draft}`, with the number of the pass
as `${state.iteration}`, from 0. An output of the body takes the place of the state of its name. The last
state and the outputs of the last pass come out, with the number of passes as `iterations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from graphs.nodes.map import BODY
from graphs.nodes.spec import NO_BODIES, BodyTypes, NodeSpec, TokenBound
from graphs.ports import ANY, INTEGER, Port, PortType


class Loop(NodeSpec, frozen=True, tag_field="kind", tag="loop"):
    summary: ClassVar[str] = "runs its nodes until a condition holds, a bounded number of times"
    holds_nodes: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"max_iterations": 1}
    open_inputs: ClassVar[bool] = True
    set_when_read: ClassVar[frozenset[str]] = frozenset({"state"})

    max_iterations: Annotated[int, Meta(ge=1, le=100)]
    """Most passes. It ends after them whether or not its condition holds."""
    as_: Annotated[str, Meta(min_length=1, max_length=64)] = msgspec.field(default="state", name="as")
    """What its nodes call the state."""
    state: tuple[str, ...] = ()
    """Names of the state: those in `with`, sorted. Set when it is read."""

    def inputs(self) -> Mapping[str, Port]:
        return {name: Port(ANY) for name in self.state}

    def locals(self, _body: str, given: Mapping[str, PortType], /) -> BodyTypes:
        return {self.as_: {**{name: given.get(name, ANY) for name in self.state}, "iteration": INTEGER}}

    def outputs(
        self, given: Mapping[str, PortType], bodies: BodyTypes = NO_BODIES, /
    ) -> Mapping[str, PortType]:
        state = {name: given.get(name, ANY) for name in self.state}
        return {**bodies.get(BODY, {}), **state, "iterations": INTEGER}

    @property
    def most_visits(self) -> int:
        return self.max_iterations

    def bound(self, bodies: Mapping[str, TokenBound], /) -> TokenBound:
        return bodies[BODY].times(self.max_iterations)

    def visits(self, _bodies: Sequence[str], /) -> Mapping[str, float]:
        return {BODY: (1 + self.max_iterations) / 2}
