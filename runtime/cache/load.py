"""How busy the models are with the calls of one runner."""

from __future__ import annotations

from collections import Counter


class Load:
    """Calls that go on, by model."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    def of(self, model: str) -> int:
        return self._calls[model]

    def begun(self, model: str) -> None:
        self._calls[model] += 1

    def ended(self, model: str) -> None:
        self._calls[model] -= 1
        if not self._calls[model]:
            del self._calls[model]
