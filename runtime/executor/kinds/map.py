"""`map`: the body for each item, by as many workers as items may run at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from graphs.bindings import Ref
from graphs.nodes.map import BODY, Map, Reducer
from graphs.ports import type_of
from runtime.errors import NodeError
from runtime.executor.kinds.kind import NodeCall, Perform, Resources, Values, together


def prepare(spec: Map, _resources: Resources) -> Perform:
    value, index = Ref(spec.as_, "value"), Ref(spec.as_, "index")

    async def perform(call: NodeCall, inputs: Values) -> Values:
        items = _items(inputs["over"], spec.max_items)
        results: list[Values] = [{}] * len(items)
        waiting = iter(enumerate(items))

        async def work() -> None:
            for place, item in waiting:
                passed = await call.run(BODY, {value: item, index: place}, f"[{place}]")
                results[place] = passed.outputs

        await together(work() for _ in range(min(len(items), spec.max_concurrency)))
        return {
            name: _reduced(name, spec.reduce.get(name, "collect"), [result[name] for result in results])
            for name in call.bodies[BODY]
        }

    return perform


def _items(over: Any, most: int) -> list[Any]:
    if not isinstance(over, list):
        raise NodeError(f"over is of type {type_of(over)}, it must be a list", param="over")
    if len(over) > most:
        raise NodeError(f"there are {len(over)} items, max_items is {most}", param="over")
    return over


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
