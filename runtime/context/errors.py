"""What can go wrong with a context.

    ContextError
    ├── ContextConflict   somebody else changed it first; says which version it has now
    └── ContextTooLarge   what is to be added exceeds the bounds by itself

A bad tenant or context id is `runtime.store.errors.InvalidName`. Each survives pickling.
"""

from __future__ import annotations


class ContextError(Exception):
    """Base of everything this package raises on purpose."""


class ContextConflict(ContextError):
    """The context is not at the version that the caller built on. Nothing was changed."""

    def __init__(self, current_version: int) -> None:
        super().__init__(current_version)
        self.current_version = current_version

    def __str__(self) -> str:
        return f"the context is at version {self.current_version} by now: load it again"


class ContextTooLarge(ContextError):
    """More than a context may hold. Nothing was changed."""

    def __init__(self, max_bytes: int, max_turns: int) -> None:
        super().__init__(max_bytes, max_turns)
        self.max_bytes = max_bytes
        self.max_turns = max_turns

    def __str__(self) -> str:
        return f"a context holds at most {self.max_turns} turns and {self.max_bytes} bytes"
