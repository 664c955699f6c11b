"""Which checkpoints of a run stay when another run forks from it.

A fork at a node, with other outputs in the place of its own, drops what came of those:

    list ─► search (map: ask ─► each ─► note) ─► say ─► answer         fork at search[3].each

    dropped   search[3].each    the node: its new outputs are a checkpoint of their own
              search[3].note    what follows from it in its scope, by values and by `after`, with all inside
              search            what it is in: that is entered again, and finds what is done inside it
              say, answer       what follows from that, and so on outwards
    stay      list, search[0].each … search[2].note, search[4].each …

Of a loop all later passes are dropped, of an agent all that it did after the call of the tool. A fork with
other inputs drops all that follows from them. A fork with nothing new is a replay: nothing stays.

Reason: a checkpoint is right as long as all that flowed into it is the same (Acar, Blelloch and Harper,
"Adaptive functional programming", POPL 2002). The plan says what flows where, so nothing is recorded for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from msgspec.structs import replace

from graphs.bindings import INPUTS, Ref, references
from graphs.errors import nearest
from graphs.inference import typed
from graphs.nodes.agent import Agent
from graphs.nodes.loop import Loop
from graphs.nodes.map import BODY, Map
from graphs.nodes.subgraph import Subgraph
from graphs.pipeline import Body, Context, Metadata, Node, NodeId, Pipeline
from graphs.ports import PortType, type_schema
from runtime.durability.model import Checkpoint
from runtime.errors import InputProblem, InvalidInputs
from runtime.executor.progress import OF_RUN
from runtime.plan import ExecutionPlan, ExecutionStep, PlannedNode
from runtime.values import value_fault

MAX_PATH_CHARS = 1_000
"""Of the path of a node that is forked at."""
MAX_SHOWN_CHARS = 200
"""Of a path or a complaint that a message quotes."""

FROM, OUTPUTS = "from", "outputs"
"""Fields that problems are named by: the node that is forked at, and its outputs."""

_NUMBER = re.compile(r"\[(0|[1-9][0-9]{0,5})\]\.")
_NUMBERS = re.compile(r"\[([0-9]{1,6})\]")
_COUNTED = re.compile(r"(?P<part>[\[+])(?P<number>[0-9]+)(?P<of>\.)?")
"""Behind the path of a loop or an agent: `[3]` is inside a pass or step. `+3` is what a loop had before that
pass, or what a model said in that step; `+3.search` what came of the tool that it called then."""
_CUT = re.compile(r"[.\[+]")
_TRIED = re.compile(r"~[0-9]+(?=.)")
_TRY = re.compile(r"~([0-9]+)$")

_PARTS = {Map: "items", Loop: "passes", Agent: "steps"}


class _Cut(NamedTuple):
    """What a fork keeps of the run it comes from."""

    dropped: frozenset[str]
    """Paths of nodes that are dropped with all that is inside them."""
    entered: frozenset[str]
    """Paths of nodes that are entered again: what is inside them stays."""
    later: Mapping[str, int]
    """By path of a loop or an agent: the last pass or step that stays."""
    beside: frozenset[str]
    """Paths of nodes that stay with all that is inside them, though they begin like one that is dropped: the
    compiler has taken them out of the node that they were written in."""

    def keeps(self, path: str) -> bool:
        """Whether the checkpoint stays. `path` is of a node, or of a part of its work, without its tries."""
        if path in self.entered:
            return False
        for each in _around(path):
            if each in self.beside:
                return True
            if each in self.dropped or (each in self.later and self._is_later(path[len(each) :], each)):
                return False
        return path != OF_RUN

    def _is_later(self, rest: str, around: str) -> bool:
        """Whether something inside a loop or an agent, or a part of its work, is behind what stays."""
        found = _COUNTED.match(rest)
        if found is None:
            return False
        number, last = int(found["number"]), self.later[around]
        return number > last or (number == last and found["part"] == "+" and found["of"] is not None)


class _Level(NamedTuple):
    """One scope on the way to a node."""

    prefix: str
    """Of the paths of its nodes: `search[3].`."""
    steps: Sequence[ExecutionStep]
    node: PlannedNode
    """The one on the way."""
    number: int | None = None
    """Which item, pass or step of the node the way goes on in; None where it has but one, or ends."""
    key: str | None = None
    """Of the body that the way goes on in; None where it ends."""

    @property
    def path(self) -> str:
        return self.prefix + self.node.name


def fork(
    plan: ExecutionPlan,
    done: Mapping[str, Checkpoint],
    node: str | None = None,
    outputs: Mapping[str, Any] | None = None,
    inputs: Collection[str] = (),
) -> dict[str, Checkpoint]:
    """The checkpoints that a new run begins with, by path: those of `done` that stay, and that of the edit.

    `node` is the path of the node to fork at, and `outputs` what it is to have given, by port; a port that is
    left out keeps what the node gave. Without them the node is run again. `inputs` are the names of the
    inputs that are others than before. Raises `InvalidInputs`, whose fields are `from` and `outputs.PORT`.
    """
    if outputs is not None and node is None:
        raise InvalidInputs([InputProblem(FROM, "is required where there are outputs: the node they are of")])
    if node is None and not inputs:
        return {}
    levels = [] if node is None else _levels(plan, node)
    if node is not None:
        _check_entered(levels, done)
    cut = _cut(plan, levels, inputs)
    if node is not None and levels[0].path in cut.dropped and len(levels) > 1:
        raise InvalidInputs(
            [InputProblem(FROM, f"{levels[0].path} begins anew with other inputs: fork at it")]
        )
    # Whoever forks owes nothing for what another run has done.
    kept = {path: replace(each, usage=None) for path, each in done.items() if cut.keeps(_plain(path))}
    if node is not None and outputs is not None:
        place = _place(levels, done)
        kept[place] = Checkpoint(place, _edited(plan, levels, outputs, done.get(place)))
    return kept


def _plain(path: str) -> str:
    """The path of a checkpoint without the tries of nodes around it: `refine~2.draft` is `refine.draft`. That
    the node itself was tried, `refine~2`, is told as a part of its work, `refine+~2`."""
    return _TRY.sub(r"+~\1", _TRIED.sub("", path)) if "~" in path else path


def _place(levels: Sequence[_Level], done: Mapping[str, Checkpoint]) -> str:
    """The path of the node in the tries at which those around it had arrived."""
    place = ""
    for level, inner in pairwise(levels):
        place += level.node.name
        tries = [int(path[len(place) + 1 :]) for path in done if _TRY.sub("", path) == place != path]
        label = inner.prefix.removeprefix(level.path)
        place += f"~{max(tries)}{label}" if tries else label
    return place + levels[-1].node.name


def _cut(plan: ExecutionPlan, levels: Sequence[_Level], inputs: Collection[str]) -> _Cut:
    """What a fork at the end of `levels` drops, with other inputs of these names."""
    dropped = set(_follows(plan.steps, set(), {Ref(INPUTS, name) for name in inputs}))
    for level in levels:
        dropped |= {level.prefix + name for name in _follows(level.steps, {level.node.name}, frozenset())}
    entered = {level.path for level in levels[:-1]} - dropped
    last = {levels[-1].path} if levels else set()
    passes = {
        level.path: level.number
        for level in levels
        if level.number is not None and isinstance(level.node.spec, Loop | Agent)
    }
    dropped |= last
    return _Cut(frozenset(dropped), frozenset(entered), passes, frozenset(_moved(levels) - dropped - entered))


def _around(path: str) -> Iterator[str]:
    """The path and those of all that it is inside, the innermost first."""
    yield path
    for cut in reversed(list(_CUT.finditer(path))):
        yield path[: cut.start()]


def _moved(levels: Sequence[_Level]) -> set[str]:
    """Paths of nodes of these scopes that the compiler has taken out of others: they keep their paths."""
    return {
        level.prefix + node.name
        for level in levels
        for step in level.steps
        for node in step.nodes
        if "." in node.name
    }


def _follows(steps: Sequence[ExecutionStep], of: Set[str], changed: Set[Ref]) -> set[str]:
    """Names of the nodes of a scope to which anything flows from the nodes `of` or the values `changed`, or
    that come after such; without `of`."""
    members = {step.id: {node.name for node in step.nodes} for step in steps}
    gone: set[str] = set(of)
    for step in steps:
        taken = [{ref for each in node.bindings() for ref in references(each)} for node in step.nodes]
        owners = {ref.owner for refs in taken for ref in refs}
        late = any(members[other] & gone and not members[other] & owners for other in step.depends_on)
        for node, refs in zip(step.nodes, taken, strict=True):
            if late or refs & changed or any(ref.owner in gone for ref in refs):
                gone.add(node.name)
    return gone - of


def _levels(plan: ExecutionPlan, path: str) -> list[_Level]:
    """The scopes on the way to a node, the outermost first. Raises `InvalidInputs` where there is no such."""
    levels: list[_Level] = []
    steps, prefix = plan.steps, ""
    while len(path) <= MAX_PATH_CHARS:
        node = _named(steps, path, len(prefix))
        if node is None:
            break
        end = len(prefix) + len(node.name)
        if end == len(path):
            return [*levels, _Level(prefix, steps, node)]
        inside = _inside(node, path, end)
        if inside is None:
            break
        key, number, end = inside
        levels.append(_Level(prefix, steps, node, number, key))
        steps, prefix = node.bodies[key].steps, path[:end]
    raise InvalidInputs([InputProblem(FROM, _no_node(plan, path))])


def _named(steps: Sequence[ExecutionStep], path: str, begin: int) -> PlannedNode | None:
    """The node whose name the path goes on with. Names have dots where the compiler has moved a node."""
    nodes = (node for step in steps for node in step.nodes if path.startswith(node.name, begin))
    fit = [node for node in nodes if path[begin + len(node.name) :][:1] in ("", ".", "[")]
    return max(fit, key=lambda node: len(node.name), default=None)


def _inside(node: PlannedNode, path: str, begin: int) -> tuple[str, int | None, int] | None:
    """The body that a path goes on in behind the name of a node, which run of it, and where the name of the
    node inside begins; None where there is no such. Raises `InvalidInputs` for a number over its bound."""
    number: int | None = None
    spec = node.spec
    if isinstance(spec, Map | Loop | Agent):
        found = _NUMBER.match(path, begin)
        if found is None:
            return None
        if int(found[1]) >= spec.most_visits:
            here, most = path[:begin][:MAX_SHOWN_CHARS], f"{spec.most_visits} {_PARTS[type(spec)]}"
            message = f"there is no {here}[{found[1]}]: {node.name} has at most {most}"
            raise InvalidInputs([InputProblem(FROM, message)])
        number, begin = int(found[1]), found.end()
        if not isinstance(spec, Agent):
            return BODY, number, begin
    elif path[begin] != ".":
        return None
    elif isinstance(spec, Subgraph):
        return BODY, None, begin + 1
    else:
        begin += 1
    key = next((key for key in node.bodies if path.startswith(f"{key}.", begin)), None)
    return None if key is None else (key, number, begin + len(key) + 1)


def _no_node(plan: ExecutionPlan, path: str) -> str:
    shown = path[:MAX_SHOWN_CHARS] or "''"
    if "+" in path:
        return f"{shown} is a part of the work of a node: fork at the node"
    numbers = _NUMBERS.findall(shown)
    known = [_filled(each, numbers) for each in _paths(plan.steps, "")]
    near = get_close_matches(shown, known, n=1, cutoff=0.5)
    return f"there is no node {shown}" + (f"; did you mean {near[0]}?" if near else "")


def _paths(steps: Sequence[ExecutionStep], prefix: str) -> Iterator[str]:
    """Of all nodes, `[]` for each number."""
    for step in steps:
        for node in step.nodes:
            path = prefix + node.name
            yield path
            for key, body in node.bodies.items():
                yield from _paths(body.steps, path + _label(node, key))


def _label(node: PlannedNode, key: str) -> str:
    """What stands between a node and those inside it."""
    match node.spec:
        case Map() | Loop():
            return "[]."
        case Agent():
            return f"[].{key}."
        case Subgraph():
            return "."
        case _:
            return f".{key}."


def _filled(path: str, numbers: Sequence[str]) -> str:
    """With the numbers that were asked for, and zeros where there are not enough."""
    first, *rest = path.split("[]")
    given = [*numbers[: len(rest)], *["0"] * (len(rest) - len(numbers))]
    return first + "".join(f"[{number}]{each}" for number, each in zip(given, rest, strict=True))


def _check_entered(levels: Sequence[_Level], done: Mapping[str, Checkpoint]) -> None:
    """Raises `InvalidInputs` where the run was elsewhere in a node than where the path leads."""
    plain = [_plain(path) for path in done]
    for level, inner in pairwise(levels):
        moved = _moved([level])
        around = (f"{level.path}[", f"{level.path}.")
        inside = [path for path in plain if path.startswith(around) and moved.isdisjoint(_around(path))]
        assert level.key is not None
        leaves_something = any(step.backend != "inline" for step in level.node.bodies[level.key].steps)
        is_done = leaves_something and level.path in plain
        if is_done and inside and not any(path.startswith(inner.prefix) for path in inside):
            message = f"the run was never in {inner.prefix[:-1][:MAX_SHOWN_CHARS]}"
            raise InvalidInputs([InputProblem(FROM, message)])


def _edited(
    plan: ExecutionPlan, levels: Sequence[_Level], outputs: Mapping[str, Any], before: Checkpoint | None
) -> dict[str, Any]:
    """The outputs of the node, in the place of those before. Raises `InvalidInputs`."""
    types = _types_of(plan, levels)
    problems = [
        InputProblem(f"{OUTPUTS}.{port[:64]}", fault)
        for port, value in outputs.items()
        if (fault := _fault(port, value, types)) is not None
    ]
    kept = before.outputs if before is not None and not before.skipped else {}
    made = {**kept, **outputs}
    problems += [
        InputProblem(f"{OUTPUTS}.{port}", f"is missing, and nothing is kept of it: it is a {port_type}")
        for port, port_type in types.items()
        if port not in made
    ]
    if problems:
        raise InvalidInputs(problems)
    return made


def _fault(port: str, value: Any, types: Mapping[str, PortType]) -> str | None:
    if port not in types:
        hint = nearest(port, types)
        return "is not an output of the node" + (f" ({hint})" if hint else "")
    wrong = value_fault(value)
    if wrong is not None:
        return wrong
    error = next(Draft202012Validator(type_schema(types[port])).iter_errors(value), None)
    if error is None:
        return None
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return f"{where[:MAX_SHOWN_CHARS]}{': ' if where else ''}{error.message[:MAX_SHOWN_CHARS]}"


def _types_of(plan: ExecutionPlan, levels: Sequence[_Level]) -> Mapping[str, PortType]:
    """The types of the outputs of the node that the levels lead to, without those that follow from others."""
    context = Context(plan.reads)
    types = typed(Pipeline(Metadata(plan.graph), _written(plan.steps), {}, plan.inputs, context))
    for level in levels[:-1]:
        assert level.key is not None
        types = types.bodies[level.node.name][level.key]
    node = levels[-1].node
    made = types.ports[node.name].items()
    return {port: port_type for port, port_type in made if port not in node.spec.derived}


def _written(steps: Sequence[ExecutionStep]) -> dict[NodeId, Node]:
    """The nodes as an author might have written them, as far as types go."""
    return {
        node.name: Node(
            node.spec,
            node.inputs,
            when=None if node.when is None else "true",
            bodies={
                key: Body(_written(body.steps), body.outputs, defaults=body.defaults)
                for key, body in node.bodies.items()
            },
        )
        for step in steps
        for node in step.nodes
    }
