"""`python -m benchmarks.compile_ours SHAPE NODES`: reads and compiles one pipeline, and says what it cost."""

from __future__ import annotations

import sys
import time
from itertools import pairwise

import msgspec

from benchmarks.growth import Cost
from benchmarks.memory import Memory
from benchmarks.shapes import SHAPES, to_yaml
from cluster.interface import ModelInfo
from graphs.loader import load
from runtime.compiler.catalog import Catalog, IndexInfo
from runtime.compiler.compile import PASSES, VALIDATE
from runtime.compiler.lower import lower
from runtime.compiler.passes.validate import validate

CATALOG = Catalog(
    models={
        "generator": ModelInfo("generator", "generate", 8192, 256),
        "embedder": ModelInfo("embedder", "embed", 512, 1),
    },
    indexes={"manual": IndexInfo("manual", "embedder")},
)


def compile_once(shape: str, nodes: int) -> Cost:
    """Every stage by itself, in the order in which the compiler takes them."""
    text = to_yaml(shape, SHAPES[shape](nodes))
    memory = Memory()
    began = time.perf_counter()
    marks = [("", time.process_time())]

    def mark(stage: str) -> None:
        marks.append((stage, time.process_time()))

    pipeline = load(text).pipeline
    mark("read")
    draft = validate(pipeline, CATALOG)
    mark(VALIDATE)
    for name, stage in PASSES.items():
        draft = stage(draft)
        mark(name)
    plan = lower(draft)
    mark("lower")
    wall_s = time.perf_counter() - began
    assert plan.hash
    stages = {name: after - before for (_, before), (name, after) in pairwise(marks)}
    return Cost(stages, wall_s, memory.grown_mb())


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(compile_once(sys.argv[1], int(sys.argv[2]))))
