"""What a caller may use: models, graphs and indexes by name, and paths, as its lists have them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from graphs.versions import AT
from serve_apps.gateway.callers import Caller

GRAPH_PREFIX = "graph/"
INDEX_PREFIX = "index/"
INLINE_PREFIX = "inline/"
"""Begins what the graph of a run is called that came with its call. No name of a graph has a `/`."""

MAX_WILDCARDS: Final = 8
ENDPOINT: Final = re.compile(r"(\*|/[A-Za-z0-9._~/{}*-]{0,255})")
"""What a pattern of paths looks like."""


def may_use(caller: Caller, model: str) -> bool:
    """Whether the key may call a model, a `graph/NAME` or an `index/NAME`, or see the runs of a graph.

    Who may use a graph may use all its versions, `graph/NAME@VERSION`. Who is held to a list sees of the
    pipelines that came with a call only its own.
    """
    if caller.models is None:
        return True
    if model.startswith(GRAPH_PREFIX + INLINE_PREFIX):
        return model.endswith(f"/{caller.id}")
    listed = model.partition(AT)[0] if model.startswith(GRAPH_PREFIX) else model
    return model in caller.models or listed in caller.models


def inline_name(caller: Caller, name: str) -> str:
    """What a pipeline of that name is called in the records of its runs, where it came with the call."""
    return f"{INLINE_PREFIX}{name}" if caller.models is None else f"{INLINE_PREFIX}{name}/{caller.id}"


def may_call(caller: Caller, path: str) -> bool:
    """Whether the caller's list of endpoints has the path. `*` stands for anything, `/` too."""
    return caller.endpoints is None or any(_matcher(pattern)(path) for pattern in caller.endpoints)


def covers(patterns: Iterable[str], pattern: str) -> bool:
    """Whether every path of `pattern` surely is one of a single one of `patterns`."""
    # A `*` of the narrower one is matched as if it were a letter, which only a `*` of the wider one matches.
    return any(_matcher(wide)(pattern.replace("*", "\0")) for wide in patterns)


def wrong_endpoint(pattern: str) -> str | None:
    """What is wrong with a pattern of paths; None where it is one."""
    if ENDPOINT.fullmatch(pattern) is None:
        return f"{pattern[:80]!r} is no path: write it as /v1/chat/completions or /v1/graphs/*"
    if pattern.count("*") > MAX_WILDCARDS:
        return f"{pattern[:80]!r} has more than {MAX_WILDCARDS} wildcards"
    return None


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    # fnmatch's expressions never backtrack past a `*` that is followed by another.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]").replace("?", "[?]"))).match
