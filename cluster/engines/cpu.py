"""What a CPU replica of vLLM finds in its environment, before its engine's process is started.

    spec, "0-1"  ─►  {OMP_NUM_THREADS: 2, OMP_PLACES: {0,1}, ...}

Ray gives an actor that books no CPUs of its own one OpenMP thread, and vLLM sets threads only for workers in
processes of their own: unless they are said here, the engine computes on one core of all that it has.
"""

from __future__ import annotations

from cluster.config import VllmSpec


def environment(spec: VllmSpec, cores: str) -> dict[str, str]:
    """Variables for the engine on those cores, as "0-3,6": a thread for each, on no others."""
    numbers = _numbers(cores)
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(spec.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(len(numbers)),
        "OMP_PLACES": f"{{{','.join(map(str, numbers))}}}",
        "OMP_PROC_BIND": "true",
    }


def _numbers(cores: str) -> list[int]:
    spans = [span.partition("-") for span in cores.split(",")]
    return sorted({core for first, _, last in spans for core in range(int(first), int(last or first) + 1)})
