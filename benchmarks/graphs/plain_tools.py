"""What tools of the pipelines do, without anything of ours: peers import it too."""

from __future__ import annotations

import asyncio
import random

PASSAGES = 4
"""That a search finds."""
BEST = 8
"""That are read of all that was found."""


async def search(query: str, seconds: float) -> list[str]:
    """Passages for a query, the same for the same."""
    await asyncio.sleep(seconds)
    choose = random.Random(query).choice
    return [" ".join(choose(WORDS) for _ in range(40)) for _ in range(PASSAGES)]


def rerank(found: list[list[str]]) -> list[str]:
    """The best passages of all that was found, each once."""
    best = sorted({passage for passages in found for passage in passages}, key=lambda text: (len(text), text))
    return best[:BEST]


async def look(topic: str, seconds: float) -> str:
    """What is there of a topic."""
    await asyncio.sleep(seconds)
    return f"a {random.Random(topic).choice(WORDS)} near the {topic[:40]}"


async def act(thought: str, step: int, seconds: float) -> str:
    """What comes of a thought."""
    await asyncio.sleep(seconds)
    return f"Step {step + 1} of the plan is done. {thought} What is to be done next?"


WORDS = (
    *("harbour", "station", "valley", "market", "bridge", "school", "garden", "river"),
    *("engine", "letter", "window", "machine", "ticket", "paper", "table", "captain"),
    *("teacher", "doctor", "farmer", "driver", "writer", "worker", "painter", "keeps"),
)
