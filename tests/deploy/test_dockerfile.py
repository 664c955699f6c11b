"""The image is made of what is locked, without root and without secrets. No test builds it."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Each with its arguments, lines that go on put together."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    split = [line.split(maxsplit=1) for line in whole.splitlines() if line.strip()]
    return [(name, arguments) for name, arguments in split]


def of(instructions: list[tuple[str, str]], kind: str) -> list[str]:
    return [arguments for name, arguments in instructions if name == kind]


def test_only_known_instructions(instructions: list[tuple[str, str]]) -> None:
    known = {"ARG", "FROM", "LABEL", "USER", "WORKDIR", "SHELL", "COPY", "RUN", "ENV"}
    assert {name for name, _ in instructions} <= known
    assert len(of(instructions, "RUN")) <= 2, "each is a layer"


def test_it_runs_as_a_user_by_number(instructions: list[tuple[str, str]]) -> None:
    assert of(instructions, "USER") == ["1000"]
    assert all("sudo" not in command for command in of(instructions, "RUN"))


def test_the_base_is_pinned(instructions: list[tuple[str, str]]) -> None:
    (base,) = of(instructions, "FROM")
    assert re.fullmatch(r"rayproject/ray:\d+\.\d+\.\d+-py311-\$\{DEVICE\}", base)


def test_packages_come_from_the_locks_with_their_hashes(instructions: list[tuple[str, str]]) -> None:
    packages, ours = of(instructions, "RUN")
    assert packages.count("--require-hashes") == 2
    assert "requirements/$DEVICE.lock" in packages
    for device in ("cpu", "gpu"):
        assert (ROOT / "requirements" / f"{device}.lock").is_file()
    assert "--no-deps" in ours
    assert "--no-cache" in packages
    assert "--no-cache-dir" in ours


def test_no_secret_is_built_in(instructions: list[tuple[str, str]]) -> None:
    for name in ("ARG", "ENV"):
        for arguments in of(instructions, name):
            assert not re.search(r"(?i)token|password|secret|key", arguments)
    assert "ADD" not in {name for name, _ in instructions}


def test_what_is_copied_exists_and_is_let_into_the_build(instructions: list[tuple[str, str]]) -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for arguments in of(instructions, "COPY"):
        *sources, _ = [word for word in arguments.split() if not word.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists()
            assert any(fnmatch(source, rule) or rule.startswith(f"{source}/") for rule in let_in), source


def test_nothing_else_is_let_into_the_build() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert not {"!.data", "!.git", "!.env", "!tests"} & set(rules)
