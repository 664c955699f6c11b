from __future__ import annotations

import os
from pathlib import Path

from serve_apps.cli.environment import MARKER, ray_token_file, system_environment, write_secret


def test_ray_is_asked_for_tokens_haproxy_and_throughput(tmp_path: Path) -> None:
    environment = system_environment(tmp_path, {"PATH": "/bin", "PYTHONDONTWRITEBYTECODE": "1"})
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(ray_token_file(tmp_path))
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert environment["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert environment[MARKER] == str(tmp_path)
    assert "PYTHONDONTWRITEBYTECODE" not in environment


def test_functions_of_the_working_directory_are_found_behind_what_is_named(tmp_path: Path) -> None:
    assert system_environment(tmp_path, {})["PYTHONPATH"] == os.getcwd()
    named = system_environment(tmp_path, {"PYTHONPATH": "/a:/b"})
    assert named["PYTHONPATH"] == f"/a:/b:{os.getcwd()}"


def test_the_token_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = ray_token_file(tmp_path)
    token = file.read_text()
    assert len(token) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    assert ray_token_file(tmp_path).read_text() == token


def test_a_secret_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_secret(file, "first")
    write_secret(file, "second")
    assert file.read_text() == "second"
    assert os.listdir(tmp_path) == ["secret"]
