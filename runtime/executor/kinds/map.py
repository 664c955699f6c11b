"""`map`: the body for each item, by as many workers as items may run at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import chain
from typing import Any

from graphs.bindings import Ref
from graphs.nodes.map import BODY, Map, Reducer
from graphs.ports import type_of
from runtime.errors import NodeError
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values, together
from runtime.executor.streams import Stream


def prepare(spec: Map, _resources: Resources) -> Perform:
    value, index = Ref(spec.as_, "value"), Ref(spec.as_, "index")

    async def perform(call: NodeCall, inputs: Values) -> Values:
        over, most = _items(inputs["over"], spec.max_items)
        results = _Results(spec, call)
        with closing(over.read()) as items:

            async def work() -> None:
                async for place, item in items.numbered():
                    if place >= spec.max_items:
                        raise NodeError(
                            f"there are more items than max_items, {spec.max_items}", param="over"
                        )
                    passed = await call.run(BODY, {value: item, index: place}, f"[{place}]")
                    await results.add(place, passed.outputs)

            await together(work() for _ in range(min(most, spec.max_concurrency)))
        ordered = results.ordered()
        return {
            name: _reduced(name, spec.reduce.get(name, "collect"), [result[name] for result in ordered])
            for name in call.bodies[BODY]
        }

    return perform


class _Results:
    """What the body has given for each item. What is followed is handed on in the order of the results."""

    def __init__(self, spec: Map, call: NodeCall) -> None:
        self._call = call
        self._as_completed = spec.order == "completed"
        self._followed = [name for name in call.bodies[BODY] if call.follows(name)]
        self._results: dict[int, Values] = {}
        """By place, in the order in which they were completed."""
        self._given = 0
        self._giving = asyncio.Lock()

    async def add(self, place: int, outputs: Values) -> None:
        if self._as_completed:
            place = len(self._results)
        self._results[place] = outputs
        if not self._followed:
            return
        async with self._giving:
            while self._given in self._results:
                for name in self._followed:
                    await self._call.put(name, self._results[self._given][name])
                self._given += 1

    def ordered(self) -> list[Values]:
        return [self._results[place] for place in range(len(self._results))]


def _items(over: Any, most: int) -> tuple[Stream, int]:
    """The items, and the most that there can be."""
    if isinstance(over, Stream):
        return over, most
    if not isinstance(over, list):
        raise NodeError(f"over is of type {type_of(over)}, it must be a list", param="over")
    if len(over) > most:
        raise NodeError(f"there are {len(over)} items, max_items is {most}", param="over")
    return Stream.of(over), len(over)


def _reduced(name: str, reducer: Reducer, values: list[Any]) -> Any:
    if reducer == "collect":
        return values
    try:
        return _REDUCERS[reducer]([value for value in values if value is not None])
    except TypeError as error:
        raise NodeError(f"what its body gives as {name} does not fit the reducer {reducer}") from error


def _flattened(lists: list[Any]) -> list[Any]:
    if not all(isinstance(each, list) for each in lists):
        raise TypeError("not a list")
    return list(chain.from_iterable(lists))


_REDUCERS: Mapping[Reducer, Callable[[list[Any]], Any]] = {
    "flatten": _flattened,
    "join": "\n\n".join,
    "sum": sum,
    "min": lambda numbers: min(numbers, default=None),
    "max": lambda numbers: max(numbers, default=None),
    "any": any,
    "all": all,
}
