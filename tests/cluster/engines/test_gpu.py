from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from cluster.config import VllmSpec
from cluster.engines import gpu


def spec(**fields: Any) -> VllmSpec:
    return VllmSpec(**({"name": "m", "engine": "vllm", "source": "x/y", "accelerator_type": "L4"} | fields))


def test_the_engine_is_told_of_its_part() -> None:
    assert gpu.environment(spec(num_gpus=0.3333)) == {"VLLM_RAY_PER_WORKER_GPUS": "0.3333"}
    assert gpu.environment(spec(num_gpus=1)) == gpu.environment(spec(tensor_parallel_size=2)) == {}


def test_vllm_knows_of_parts() -> None:
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    (variable,) = gpu.environment(spec(num_gpus=0.5))
    assert f'"{variable}"' in Path(found.origin).with_name("envs.py").read_text()


async def test_engines_that_share_a_gpu_start_one_after_the_other(tmp_path: Path) -> None:
    file, events = tmp_path / "lock", []

    async def start(name: str) -> None:
        async with gpu.one_at_a_time(spec(name=name, num_gpus=0.5), file):
            events.append("begin")
            await asyncio.sleep(0)
            events.append("end")

    await asyncio.gather(*map(start, "abc"))
    assert events == ["begin", "end"] * 3


async def test_an_engine_that_does_not_start_lets_the_next_try(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError):
            async with gpu.one_at_a_time(spec(num_gpus=0.5), tmp_path / "lock"):
                raise RuntimeError("no memory")


async def test_who_has_whole_gpus_waits_for_nobody(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    async with gpu.one_at_a_time(spec(num_gpus=0.5), file), gpu.one_at_a_time(spec(), file):
        assert file.stat().st_mode & 0o777 == 0o600


async def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"):
        async with gpu.one_at_a_time(spec(num_gpus=0.5), tmp_path / "lock"):
            pass
    assert not (tmp_path / "elsewhere").exists()
