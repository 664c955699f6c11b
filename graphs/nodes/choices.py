"""What a model may choose from: names, each with a description that the model reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta

from graphs.nodes.spec import TokenBound

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Description = Annotated[str, Meta(min_length=1, max_length=500)]
Choices = Annotated[Mapping[Name, Description], Meta(min_length=2, max_length=32)]

ANSWER_FIELD = "choice"
"""Of the JSON object that a generating model answers with."""
_AROUND_TOKENS = 24
"""For the braces, the name of the field, and spaces."""


def choice_bound(max_prompt_tokens: int, names: Iterable[str]) -> TokenBound:
    """Most tokens of one choice. A token of the answer is at least one byte of the name."""
    longest = max(len(json.dumps(name, ensure_ascii=False).encode()) for name in names)
    return TokenBound(max_prompt_tokens, longest + _AROUND_TOKENS)
