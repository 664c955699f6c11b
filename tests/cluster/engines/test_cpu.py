"""What an engine on CPU is told of the cores that it may use."""

from __future__ import annotations

import pytest

from cluster.config import VllmSpec
from cluster.engines.cpu import environment

SPEC = VllmSpec(name="small", engine="vllm", source="bundled/smollm2", kv_cache_gib=3)


@pytest.mark.parametrize(
    ("cores", "threads", "places"),
    [
        ("0", "1", "{0}"),
        ("0,1", "2", "{0,1}"),
        ("4-7", "4", "{4,5,6,7}"),
        ("6,0-2,2", "4", "{0,1,2,6}"),
    ],
)
def test_the_engine_has_a_thread_for_each_of_its_cores(cores: str, threads: str, places: str) -> None:
    variables = environment(SPEC, cores)
    assert variables["OMP_NUM_THREADS"] == threads
    assert variables["OMP_PLACES"] == places
    assert variables["OMP_PROC_BIND"] == "true"


def test_the_engine_has_the_cache_that_its_spec_asks_for() -> None:
    assert environment(SPEC, "0-1")["VLLM_CPU_KVCACHE_SPACE"] == "3"
