"""Steps of several functions with processes of their own: values go from process to process past the runner.

pages ─► [clean ─► split ─► score] ─► best        the runner sends `pages` once, and gets what all three made
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cluster.stages import OpenChain, Source, Stage, StageChain
from graphs.bindings import Ref, references
from graphs.nodes.function import Function
from runtime.executor.kinds import function
from runtime.executor.slots import Getter, Values
from runtime.plan import ExecutionStep, PlannedNode


@dataclass(frozen=True, slots=True)
class PreparedChain:
    stages: StageChain
    given: tuple[tuple[str, Getter], ...]
    repeatable: bool
    """Whether it may be run again when nobody knows how far it came."""

    def inputs(self, values: Values) -> dict[str, object]:
        """What the chain is given, out of the slots."""
        return {key: get(values) for key, get in self.given}


def chain_of(
    step: ExecutionStep, getters: Sequence[Mapping[str, Getter]], open_chain: OpenChain | None
) -> PreparedChain | None:
    """The chain of a step of functions; None where they are run one after the other.

    `getters` are those of the inputs of each node.
    """
    if open_chain is None:
        return None
    place: dict[str, int] = {node.name: index for index, node in enumerate(step.nodes)}
    stages: list[Stage] = []
    given: list[tuple[str, Getter]] = []
    for index, node in enumerate(step.nodes):
        assert isinstance(node.spec, Function)
        if function.takes_key(node.spec):
            return None  # the runner gives it one
        takes: dict[str, Source] = {}
        for port, binding in node.inputs.items():
            if isinstance(binding, Ref) and binding.owner in place:
                takes[port] = Source(place[binding.owner], binding.port)
            elif any(ref.owner in place for ref in references(binding)):
                return None  # put together from what a stage makes: only the runner can
            else:
                takes[port] = Source(None, f"{index}.{port}")
                given.append((f"{index}.{port}", getters[index][port]))
        stages.append(Stage(partial(function.stage, node.spec), takes, node.spec.num_cpus or 1.0))
    name = "+".join(node.name for node in step.nodes)
    return PreparedChain(open_chain(name, stages), tuple(given), _repeatable(step.nodes))


def _repeatable(nodes: Sequence[PlannedNode]) -> bool:
    return all(node.spec.effects != "effectful" for node in nodes)
