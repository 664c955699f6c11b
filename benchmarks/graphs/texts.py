"""Texts of a given number of tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from cluster.interface import Pool
from cluster.messages import Generate, Message

PLACES = ("harbour", "station", "valley", "market", "bridge", "school", "garden", "river")
THINGS = ("engine", "letter", "window", "machine", "ticket", "engine", "paper", "table")
PEOPLE = ("captain", "teacher", "doctor", "farmer", "driver", "writer", "worker", "painter")
DOES = ("repairs", "carries", "paints", "finds", "sells", "moves", "keeps", "watches")


def messages(prompt: str, system: str | None = None) -> list[Message]:
    """A chat of one question."""
    return [*([] if system is None else [Message("system", system)]), Message("user", prompt)]


def prompt_tokens(pool: Pool, prompt: str, system: str | None = None) -> int:
    """Tokens of the whole prompt, with all that the chat template puts around it."""
    call = Generate("count", pool.info.name, 1, 0.0, messages(prompt, system))
    return pool.count_tokens(call)


def text_of(pool: Pool, tokens: int, seed: int, system: str | None = None) -> str:
    """A text about nothing much, so long that the whole prompt is of that many tokens.

    Raises `ValueError` where the system message leaves no room.
    """
    source = _words(seed)
    words = list(islice(source, 1))
    while (missing := tokens - prompt_tokens(pool, " ".join(words), system)) > 0:
        words += islice(source, max(1, missing // 2))
    if missing < 0:  # the last word was of two tokens
        words[-1] = "and"
    if prompt_tokens(pool, " ".join(words), system) != tokens:
        raise ValueError(f"no text makes the prompt {tokens} tokens long")
    return " ".join(words)


def _words(seed: int) -> Iterator[str]:
    choose = random.Random(seed).choice
    while True:
        sentence = f"the {choose(PEOPLE)} {choose(DOES)} the {choose(THINGS)} near the {choose(PLACES)} and"
        yield from sentence.split()
