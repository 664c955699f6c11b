"""What a key may use: the names of models, graphs and indexes, as its allow-list has them."""

from __future__ import annotations

from graphs.versions import AT
from serve_apps.gateway.callers import Caller

GRAPH_PREFIX = "graph/"
INDEX_PREFIX = "index/"
INLINE_PREFIX = "inline/"
"""Begins what the graph of a run is called that came with its call. No name of a graph has a `/`."""


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
