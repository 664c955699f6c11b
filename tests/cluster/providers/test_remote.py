from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.config import AnthropicSpec, OpenAISpec, RemoteSpec
from cluster.errors import ConfigError
from cluster.interface import ModelInfo
from cluster.providers.anthropic import AnthropicPool
from cluster.providers.openai import OpenAIPool
from cluster.providers.pools import remote_pool
from cluster.providers.remote import key_of, seconds_of
from cluster.tokens import ByteTokenCounter

SECRET = "sk-very-secret"
KINDS: list[Any] = [(OpenAISpec, "openai"), (AnthropicSpec, "anthropic")]


def spec_of(kind: type[RemoteSpec] = OpenAISpec, engine: str = "openai", **fields: Any) -> Any:
    return kind(**({"name": "o", "engine": engine, "base_url": "http://localhost/v1"} | fields))


@pytest.mark.parametrize(("kind", "engine"), KINDS)
def test_a_key_that_is_not_set_is_refused_by_name(kind: type[RemoteSpec], engine: str) -> None:
    spec = spec_of(kind, engine, api_key_env="SOME_KEY")
    for environment in ({}, {"SOME_KEY": ""}):
        with pytest.raises(ConfigError, match="SOME_KEY") as caught:
            remote_pool(spec, ModelInfo("o", "generate", 10, 1), ByteTokenCounter(), environment)
        assert caught.value.param == "api_key_env"


def test_each_dialect_has_its_pool() -> None:
    info = ModelInfo("o", "generate", 10, 1)
    pools = [remote_pool(spec_of(*kind), info, ByteTokenCounter(), {}) for kind in KINDS]
    assert [type(pool) for pool in pools] == [OpenAIPool, AnthropicPool]


def test_a_key_comes_from_where_the_config_says(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    assert key_of(spec_of(api_key_file=file), {}) == SECRET
    assert key_of(spec_of(api_key_env="K"), {"K": SECRET}) == SECRET
    assert key_of(spec_of(), {"K": SECRET}) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        (b"", "must hold the key"),
        (b" \n", "must hold the key"),
        (f"{SECRET}\nX-Evil: 1".encode(), "must hold the key"),
        (SECRET.encode() * 500, "must hold the key"),
        (b"\xff\xfe", "cannot be read"),
        (SECRET.encode() + "é".encode(), "must hold the key"),
    ],
)
def test_a_file_that_is_no_key_is_refused_and_never_quoted(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=why) as caught:
        key_of(spec_of(api_key_file=file), {})
    assert caught.value.param == "api_key_file"
    assert str(file) in caught.value.message
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("9" * 400, 3600.0), ("-1", None), ("1.5", None), ("²", None), ("", None)],
)
def test_retry_after_is_seconds_within_reason(header: str, seconds: float | None) -> None:
    assert seconds_of(header) == seconds
