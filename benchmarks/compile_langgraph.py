"""`python -m benchmarks.compile_langgraph SHAPE NODES`: the same nodes and edges as a LangGraph `StateGraph`.

Runs in an environment of its own, `.venv-peers`, and so imports nothing of ours but the shapes. `build` adds
nodes and edges, `compile` makes the graph runnable. It neither reads a file nor checks types, and does not
look for what could be left out, merged or fused: it is the floor of having that many nodes at all.
"""

from __future__ import annotations

import json
import operator
import sys
import time
from itertools import pairwise
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from benchmarks.memory import Memory
from benchmarks.shapes import INSIDE, SHAPES, sinks


class State(TypedDict):
    """What every node adds to."""

    texts: Annotated[list[str], operator.add]


def node(_state: State) -> dict[str, Any]:
    """Does nothing: none is ever run."""
    return {"texts": []}


def inside() -> Any:
    """What stands for a map: a graph of its nodes, compiled, as one node."""
    graph = StateGraph(State)
    for name in INSIDE:
        graph.add_node(name, node)
    for before, name in pairwise((START, *INSIDE, END)):
        graph.add_edge(before, name)
    return graph.compile()


def compile_once(shape: str, nodes: int) -> dict[str, Any]:
    """What it cost, as `benchmarks.growth.Cost` has it."""
    parts = SHAPES[shape](nodes)
    memory = Memory()
    began, start = time.perf_counter(), time.process_time()
    graph = StateGraph(State)
    for part in parts:
        graph.add_node(part.name, inside() if part.kind == "map" else node)
        graph.add_edge(list(part.sources) or START, part.name)
    for part in sinks(parts):
        graph.add_edge(part.name, END)
    built = time.process_time()
    compiled = graph.compile()
    done = time.process_time()
    assert len(compiled.nodes) >= len(parts)
    stages = {"build": built - start, "compile": done - built}
    return {"stages": stages, "wall_s": time.perf_counter() - began, "memory_mb": memory.grown_mb()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compile_once(sys.argv[1], int(sys.argv[2]))))
