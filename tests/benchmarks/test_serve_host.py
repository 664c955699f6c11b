"""The host's environment: closed token, ports away from the defaults, everything under one folder."""

from __future__ import annotations

import stat

import pytest
from ray.serve import Application

from benchmarks.serve_host import App, application, environment
from cluster.errors import ConfigError


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


def test_a_builder_is_found_by_name_and_makes_an_application():
    assert isinstance(application(App("x", "/", "benchmarks.peer:build")), Application)


def test_a_builder_gets_its_arguments_as_the_model_it_asks_for():
    with pytest.raises(ConfigError, match=r"no config file no-such\.yaml"):
        application(App("x", "/", "serve_apps.app:build", {"config": "no-such.yaml"}))


def test_an_unknown_builder_is_an_error_by_name():
    with pytest.raises(AttributeError, match="no_such_builder"):
        application(App("x", "/", "benchmarks.peer:no_such_builder"))
