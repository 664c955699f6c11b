"""The functions that the pipelines name: `plain_tools`, marked."""

from __future__ import annotations

from benchmarks.graphs import plain_tools
from graphs.functions import function


@function(effects="idempotent")
async def search(query: str, seconds: float) -> list[str]:
    return await plain_tools.search(query, seconds)


@function(effects="pure", cheap=True)
def rerank(found: list[list[str]]) -> list[str]:
    return plain_tools.rerank(found)


@function(effects="idempotent")
async def look(topic: str, seconds: float, unit_s: float) -> str:
    return await plain_tools.look(topic, seconds * unit_s)


@function(effects="idempotent")
async def act(thought: str, step: int, seconds: float) -> str:
    return await plain_tools.act(thought, step, seconds)
