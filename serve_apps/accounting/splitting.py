"""What a run owes, by the node that owes it and the model that it called.

    search[0].each  ─► minilm   12 tokens        search.each, minilm   21
    search[1].each  ─► minilm    9 tokens   ─►   answer, small         40
    answer          ─► large ✗, small  40

Items of a map and passes of a loop are one node. What is exact stays exact: a node that has finished tells
its usage, and the end of the run that of those which have not. Until then these owe what
`runtime.events.Tally` says that they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from cluster.messages import Usage
from runtime.events import (
    NodeCalled,
    NodeDelta,
    NodeFellBack,
    NodeFinished,
    NodeRetried,
    NodesDropped,
    NodeUsage,
    PrefixRead,
    RunEvent,
    RunFailed,
    RunFinished,
    RunResumed,
    RunSuspended,
    Tally,
    place_of,
)

NOTHING = Usage()


class Place(NamedTuple):
    """Whose usage it is."""

    node: str
    model: str


Split = dict[Place, Usage]


@dataclass(slots=True)
class _Calling:
    """A call of a node that has not told what it came to."""

    model: str
    prompt_tokens: int
    chars: int = 0

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, -(-self.chars // Tally.CHARS_PER_TOKEN))


class NodeTally:
    """Splits a run by its events."""

    def __init__(self) -> None:
        self._finished: Split = {}
        self._unfinished: Split = {}
        """Of nodes that ended without outputs: estimates, until the run has ended and tells them."""
        self._calling: dict[str, list[_Calling]] = {}
        """By path."""
        self._models: dict[str, str] = {}
        """By place of a node, what it called last."""

    def add(self, event: RunEvent) -> None:
        match event:
            case NodeCalled(node=node, model=model, prompt_tokens=tokens):
                self._calling.setdefault(node, []).append(_Calling(model, tokens))
                self._models[place_of(node)] = model
            case NodeDelta(node=node, text=text):
                if calls := self._calling.get(node):
                    calls[-1].chars += len(text)
            case NodeFinished():
                self._finish(event)
            case PrefixRead(node=node, model=model, usage=usage):
                _add(self._finished, Place(place_of(node), model), usage)
            case NodeRetried(node=node) | NodeFellBack(node=node) | NodesDropped(node=node):
                self._give_up_inside(node)
            case RunFinished(besides=told) | RunFailed(besides=told) | RunSuspended(besides=told):
                self._end(told)
            case RunResumed():
                self._end(())
            case _:
                pass

    @property
    def split(self) -> Split:
        """As of the last event."""
        split = dict(self._finished)
        for place, usage in self._unfinished.items():
            _add(split, place, usage)
        for path, calls in self._calling.items():
            for call in calls:
                _add(split, Place(place_of(path), call.model), call.usage)
        return split

    def _finish(self, event: NodeFinished) -> None:
        self._calling.pop(event.node, None)
        if event.usage is None:
            return
        node, rest = place_of(event.node), event.usage
        for model, usage in event.models.items():
            _add(self._finished, Place(node, model), usage)
            rest -= usage
        if rest != NOTHING:
            _add(self._finished, Place(node, self._models.get(node, "")), rest)

    def _give_up_inside(self, node: str) -> None:
        inside = (f"{node}.", f"{node}[")
        for path in [path for path in self._calling if path.startswith(inside)]:
            for call in self._calling.pop(path):
                _add(self._unfinished, Place(place_of(path), call.model), call.usage)

    def _end(self, told: Iterable[NodeUsage]) -> None:
        self._calling.clear()
        self._unfinished = {Place(each.node, each.model): each.usage for each in told}


def since(split: Split, before: Split) -> Split:
    """What has come to a split since it was another one."""
    later = {place: _positive(usage - before.get(place, NOTHING)) for place, usage in split.items()}
    return {place: usage for place, usage in later.items() if usage != NOTHING}


def fitted(split: Split, total: Usage) -> Split:
    """The split made to add up to a total that is known better: what is missing goes to whoever has most, and
    what is too much is taken from there on."""
    missing = total - sum(split.values(), NOTHING)
    if missing == NOTHING:
        return split
    places = sorted(split, key=lambda place: -split[place].total_tokens) or [Place("", "")]
    made = {place: msgspec.structs.asdict(split.get(place, NOTHING)) for place in places}
    for field, amount in msgspec.structs.asdict(missing).items():
        for place, change in _changes(places, [made[place][field] for place in places], amount):
            made[place][field] += change
    return {place: Usage(**fields) for place, fields in made.items()}


def _changes(places: list[Place], have: list[int], amount: int) -> Iterator[tuple[Place, int]]:
    if amount >= 0:
        yield places[0], amount
        return
    for place, most in zip(places, have, strict=True):
        taken = min(most, -amount)
        amount += taken
        yield place, -taken


def _add(split: Split, place: Place, usage: Usage) -> None:
    split[place] = split.get(place, NOTHING) + usage


def _positive(usage: Usage) -> Usage:
    return Usage(**{field: max(0, amount) for field, amount in msgspec.structs.asdict(usage).items()})
