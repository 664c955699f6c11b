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
from runtime.compiler.draft import Draft, DraftNode, owners

MAX_CHARS = 60
"""Of a value that is shown."""


class Difference(msgspec.Struct, frozen=True):
    """One thing that is not what it was."""

    node: str
    """`outputs.NAME` for an output of the pipeline."""
    what: str
    reason: str


_STAGE_OF = {"group": "fuse", "place": "assign", "priority": "order"}
"""Which stage sets what."""

Reasons = Mapping[str, list[tuple[str, str]]]
"""By node: the stage, and what it did and why."""


def differences(drafts: Mapping[str, Draft], first: str, last: str) -> list[Difference]:
    """What is different after stage `last` from what was after stage `first`, which comes before it."""
    reasons: dict[str, list[tuple[str, str]]] = {}
    for stage in STAGES[STAGES.index(first) + 1 : STAGES.index(last) + 1]:
        for change in drafts[stage].changes:
            reasons.setdefault(change.node, []).append((stage, f"{change.what}, {change.reason}"))
    return list(_differences(drafts[first], drafts[last], reasons))


def _differences(before: Draft, after: Draft, reasons: Reasons) -> Iterator[Difference]:
    for node_id, node in before.nodes.items():
        if node_id not in after.nodes:
            yield Difference(node_id, "gone", _because(reasons, [node_id]))
            continue
        for what, referred in _rewired(node, after.nodes[node_id]):
            gone = [owner for owner in referred if owner not in after.nodes]
            yield Difference(node_id, what, _because(reasons, gone, named=True))
        for name, what in _settings(node, after.nodes[node_id]):
            why = [text for stage, text in reasons.get(node_id, []) if stage == _STAGE_OF[name]]
            yield Difference(node_id, what, "; ".join(why))
    for name, binding in before.outputs.items():
        if after.outputs[name] != binding:
            what = f"{show(binding)} → {show(after.outputs[name])}"
            referred = [ref.owner for ref in references(binding)]
            yield Difference(f"outputs.{name}", what, _because(reasons, referred, named=True))


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
        what = "its condition always holds" if after.when is None else "its condition looks at other values"
        yield what, list(owners(operands_of(before.when)))


def _settings(before: DraftNode, after: DraftNode) -> Iterator[tuple[str, str]]:
    """Each change of what the later stages set."""
    old, new = (
        {
            "group": node.group or "alone",
            "place": f"pool {node.pool}" if node.pool is not None else node.backend,
            "priority": str(node.priority),
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
