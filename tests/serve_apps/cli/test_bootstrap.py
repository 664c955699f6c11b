"""`clustergraph keys bootstrap`, on a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from runtime.store.client import Store
from runtime.store.errors import InvalidName
from serve_apps.audit.log import AuditLog
from serve_apps.audit.model import Entry
from serve_apps.cli.calls import CallFailed
from serve_apps.cli.keys import app
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyRecord, KeyStore
from serve_apps.settings import load_settings


@pytest.fixture
def config(tmp_path: Path, valkey_url: str) -> Path:
    async def empty() -> None:
        store = Store.connect(valkey_url, timeout_s=5)
        await store.execute("FLUSHALL")
        await store.close()

    asyncio.run(empty())
    file = tmp_path / "deploy.yaml"
    settings = {"data_dir": ".", "models": [{"name": "m", "engine": "fake"}], "store": {"url": valkey_url}}
    file.write_text(yaml.safe_dump(settings))
    return file


def bootstrap(config: Path, *arguments: str) -> str:
    made = CliRunner().invoke(app, ["bootstrap", "--config", str(config), *arguments])
    if made.exception is not None and not isinstance(made.exception, SystemExit):
        raise made.exception
    assert made.exit_code == 0, made.output
    return made.output.splitlines()[-1]  # behind what is logged


def looked_up(config: Path, token: str) -> tuple[KeyRecord, list[Entry]]:
    """What the token is, and the log of the organisation `platform`."""

    async def look() -> tuple[KeyRecord, list[Entry]]:
        settings = load_settings(config)
        assert settings.store.url is not None
        store = Store.connect(settings.store.url, timeout_s=5)
        pepper = load_or_create_pepper(settings.pepper_file)
        try:
            log = AuditLog(store, pepper)
            assert (await log.verify("platform")).sound
            return await KeyStore(store, pepper).authenticate(token), await log.newest("platform", 10)
        finally:
            await store.close()

    return asyncio.run(look())


def test_the_first_key_is_an_admins_and_in_the_log(config: Path) -> None:
    record, (entry,) = looked_up(config, bootstrap(config))
    assert (record.role, record.tenant, record.name) == ("admin", "platform", "first admin")
    assert (entry.action, entry.actor, entry.object) == (
        "key.bootstrap",
        "operator",
        f"key/{record.key_id}",
    )


def test_there_is_no_second_one_but_in_place_of_one_that_was_lost(config: Path) -> None:
    token = bootstrap(config)
    first, _ = looked_up(config, token)
    with pytest.raises(CallFailed, match=f"{first.key_id}.*--instead-of"):
        bootstrap(config)
    second, entries = looked_up(config, bootstrap(config, "--instead-of", first.key_id, "--name", "second"))
    assert second.name == "second"
    assert [(entry.action, entry.outcome) for entry in entries[:2]] == [
        ("key.bootstrap", "allowed"),
        ("key.revoke", "allowed"),
    ]
    with pytest.raises(CallFailed, match="there is no key 00"):
        bootstrap(config, "--instead-of", "00")


def test_a_wrong_organisation_is_told(config: Path) -> None:
    with pytest.raises(InvalidName, match="tenant"):
        bootstrap(config, "--org", "a:b")
