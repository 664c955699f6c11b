"""What an API key looks like, and the pepper's file."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from serve_apps.gateway.key_tokens import KeyTokens, PepperError, load_or_create_pepper

PEPPER = bytes(range(32))


def test_a_token_is_of_its_pepper() -> None:
    tokens = KeyTokens(PEPPER)
    token, digest = tokens.new_token(tokens.new_id())
    parsed = tokens.parse(token)
    assert parsed is not None
    assert tokens.digest(*parsed) == digest
    assert KeyTokens(bytes(32)).parse(token) is None
    assert KeyTokens(bytes(32)).digest(*parsed) != digest


def test_a_short_pepper_is_refused() -> None:
    with pytest.raises(PepperError, match="32 bytes"):
        KeyTokens(b"short")


def test_a_pepper_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pepper"
    pepper = load_or_create_pepper(path)
    assert len(pepper) == 32
    assert load_or_create_pepper(path) == pepper
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_race_for_the_pepper_get_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        peppers = pool.map(load_or_create_pepper, [tmp_path / "pepper"] * 8, chunksize=1)
        pool.close()
        pool.join()
    assert len(set(peppers)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["pepper"]


def test_a_pepper_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    load_or_create_pepper(path)
    path.chmod(0o644)
    with pytest.raises(PepperError, match="chmod 600"):
        load_or_create_pepper(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(PepperError, match="5 bytes"):
        load_or_create_pepper(path)
