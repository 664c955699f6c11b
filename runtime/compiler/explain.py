"""What came between two stages, and why.

validate ─► prune      ask     gone              prune: its inputs are constants
                       answer  prompt: ${ask.text} → 'Be brief.'     ask: its inputs are constants
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from graphs.bindings import Binding, Literal, Ref, references
from graphs.conditions import Condition, operands_of
from runtime.compiler.compile import STAGES
from runtime.compiler.draft import Draft, DraftNode, Scope, inside, owners

MAX_CHARS = 60
"""Of a value that is shown."""


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not what it was."""

    node: str
    """`outputs.NAME` for an output of the pipeline."""
    what: str
    reason: str


_STAGE_OF = {"group": "fuse", "prefix": "fuse", "place": "assign", "priority": "order", "warm": "order"}
"""Which stage sets what."""

Reasons = Mapping[str, list[tuple[str, str]]]
"""By node: the stage, and what it did and why."""


def differences(drafts: Mapping[str, Draft], first: str, last: str) -> list[Difference]:
    """What is different after stage `last` from what was after stage `first`, which comes before it."""
    reasons: dict[str, list[tuple[str, str]]] = {}
    for stage in STAGES[STAGES.index(first) + 1 : STAGES.index(last) + 1]:
        for change in drafts[stage].changes:
            reasons.setdefault(change.node, []).append((stage, f"{change.what}, {change.reason}"))
    before, after = _Places(drafts[first]), _Places(drafts[last])
    return list(_differences(before, after, reasons))


class _Places:
    """All nodes of a draft by their paths, and what the scopes that they are in give."""

    def __init__(self, draft: Draft) -> None:
        self.nodes: dict[str, DraftNode] = {}
        self.scope_of: dict[str, str] = {}
        """By path of a node: what the paths of all in its scope begin with."""
        self.given: dict[str, tuple[str, Mapping[str, Binding]]] = {}
        """By scope as it is shown: what its paths begin with, and its outputs."""
        self.conditions: dict[str, tuple[str, Condition | None]] = {}
        self._take(draft, "")

    def _take(self, scope: Scope, begin: str) -> None:
        self.given[begin] = begin, scope.outputs
        for node_id, node in scope.nodes.items():
            path = begin + node_id
            self.nodes[path] = node
            self.scope_of[path] = begin
            for key, body in node.bodies.items():
                inner = inside(path, key)
                self.conditions[inner.removesuffix(".")] = begin, body.when
                self.conditions[f"{inner}until"] = inner, body.until
                self._take(body, inner)

    def found(self, name: str, begin: str) -> str:
        """The path of the node that a name means in a scope; the name, where it means no node."""
        while begin and begin + name not in self.nodes:
            begin = begin[:-1].rpartition(".")[0] + "." if "." in begin[:-1] else ""
        return begin + name


def _differences(before: _Places, after: _Places, reasons: Reasons) -> Iterator[Difference]:
    for path, node in before.nodes.items():
        begin = before.scope_of[path]
        if path not in after.nodes:
            if not any(each in before.nodes and each not in after.nodes for each in _around(path)):
                yield Difference(path, "gone", _because(reasons, [path, *_around(path)]))
            continue
        if begin != after.scope_of[path]:
            yield Difference(path, "moved out", _because(reasons, [path, *_around(path)]))
        for what, referred in _rewired(node, after.nodes[path]):
            yield Difference(path, what, _because_of(referred, begin, before, after, reasons))
        for name, what in _settings(node, after.nodes[path]):
            why = [text for stage, text in reasons.get(path, []) if stage == _STAGE_OF[name]]
            yield Difference(path, what, "; ".join(why))
    yield from _given(before, after, reasons)


def _given(before: _Places, after: _Places, reasons: Reasons) -> Iterator[Difference]:
    """What scopes that are still there give, and which conditions they have."""
    for scope, (begin, outputs) in before.given.items():
        for name, binding in outputs.items():
            new = after.given.get(scope, (scope, outputs))[1][name]
            if new != binding:
                what = f"{show(binding)} → {show(new)}"
                why = _because_of([ref.owner for ref in references(binding)], begin, before, after, reasons)
                yield Difference(f"{scope}outputs.{name}", what, why)
    for path, (begin, condition) in before.conditions.items():
        if after.conditions.get(path, (begin, condition))[1] != condition:
            what = _condition_change(after.conditions[path][1])
            why = _because_of(owners(operands_of(condition)), begin, before, after, reasons)
            yield Difference(path, what, why)


def _around(path: str) -> list[str]:
    """The paths of all that a node is in, the nearest first."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _because_of(
    referred: Iterable[str], begin: str, before: _Places, after: _Places, reasons: Reasons
) -> str:
    """Why nodes that were referred to in a scope are no longer where they were."""
    paths = [before.found(owner, begin) for owner in referred]
    places = [path for path in paths if before.scope_of.get(path) != after.scope_of.get(path)]
    return _because(reasons, places, named=True)


def _because(reasons: Reasons, nodes: Iterable[str], *, named: bool = False) -> str:
    """Why nodes are gone."""
    texts = [
        (f"{node}: " if named else "") + f"{stage}: {text}"
        for node in dict.fromkeys(nodes)
        for stage, text in reasons.get(node, [])
        if stage not in _STAGE_OF.values() and stage != "resolve"
    ]
    return "; ".join(texts)


def _rewired(before: DraftNode, after: DraftNode) -> Iterator[tuple[str, list[str]]]:
    """Each change of what a node takes, looks at or waits for, and whom it referred to there."""
    for port, binding in before.inputs.items():
        if after.inputs[port] != binding:
            what = f"{port}: {show(binding)} → {show(after.inputs[port])}"
            yield what, [ref.owner for ref in references(binding)]
    if before.after != after.after:
        old, new = ", ".join(before.after) or "nothing", ", ".join(after.after) or "nothing"
        yield f"after: {old} → {new}", [*before.after, *owners(before.inputs.values())]
    if before.when != after.when:
        yield _condition_change(after.when), list(owners(operands_of(before.when)))


def _condition_change(after: Condition | None) -> str:
    return "its condition always holds" if after is None else "its condition looks at other values"


def _settings(before: DraftNode, after: DraftNode) -> Iterator[tuple[str, str]]:
    """Each change of what the later stages set."""
    old, new = (
        {
            "group": node.group or "alone",
            "prefix": node.prefix or "none",
            "place": f"pool {node.pool}" if node.pool is not None else node.backend,
            "priority": str(node.priority),
            "warm": "none" if node.warm is None else f"after {node.warm.after or 'the start'}",
        }
        for node in (before, after)
    )
    for name in _STAGE_OF:
        if old[name] != new[name]:
            yield name, f"{name}: {old[name]} → {new[name]}"


def show(binding: Binding) -> str:
    """A binding as it is written, shortened."""
    if isinstance(binding, Ref):
        return str(binding)
    if isinstance(binding, Literal):
        return _plain(binding.value)
    return "[" + ", ".join(str(ref) for ref in dict.fromkeys(references(binding))) + "]"


def show_condition(condition: Condition) -> str:
    """A condition with what it looks at put back in."""
    values = [show(operand.binding) for operand in condition.operands]
    return re.sub(r"\b_(\d+)\b", lambda found: values[int(found[1])], condition.text)


def _plain(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
