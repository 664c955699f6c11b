"""The host's environment: closed token, ports away from the defaults, everything under one folder."""

from __future__ import annotations

import stat

import pytest

from benchmarks.serve_host import App, application, environment


def test_the_token_is_for_its_owner_only(tmp_path):
    made = environment(tmp_path, 18100)
    token = tmp_path / "token"
    assert made["RAY_AUTH_MODE"] == "token"
    assert made["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64


def test_ports_and_files_are_its_own(tmp_path):
    made = environment(tmp_path, 18100)
    ports = [int(value) for name, value in made.items() if name.endswith("_PORT")]
    assert len(ports) == len(set(ports))
    assert all(18100 <= port < 18400 for port in ports)
    files = [value for name, value in made.items() if "SOCKET_PATH" in name or "_FILE" in name]
    assert files
    assert all(value.startswith(str(tmp_path)) for value in files)


def test_a_builder_is_found_by_name_and_called_with_its_arguments():
    assert application(App("x", "/", "builtins:dict", {"config": "file.yaml"})) == {"config": "file.yaml"}
    assert application(App("x", "/", "builtins:dict")) == {}


def test_an_unknown_builder_is_an_error_by_name():
    with pytest.raises(AttributeError, match="no_such_builder"):
        application(App("x", "/", "builtins:no_such_builder"))
