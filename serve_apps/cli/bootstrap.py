"""`clustergraph keys bootstrap`: the first key of an administrator, straight in the store of a deploy config.

Whoever has the pepper and the store may make one: nobody else can be asked. There is no default key.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from runtime.store.client import Store
from serve_apps.audit.log import AuditLog
from serve_apps.audit.model import OPERATOR, PLATFORM, Deed
from serve_apps.cli.calls import CallFailed
from serve_apps.cli.demo import store_url
from serve_apps.cli.options import CONFIG, QUICKSTART
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import AdminExists, KeyStore
from serve_apps.settings import load_settings

STORE_TIMEOUT_S = 5.0


def bootstrap(
    organisation: Annotated[str, typer.Option("--org", help="Whose key it is.")] = "platform",
    called: Annotated[str, typer.Option("--name", help="What people call it.")] = "first admin",
    instead_of: Annotated[
        str | None, typer.Option(metavar="KEY_ID", help="Revoke this key first: an admin's that was lost.")
    ] = None,
    config: CONFIG = QUICKSTART,
) -> None:
    """Make the first key of an administrator and print it. Refused while there is one that works.

    Run it where the config, its secrets and the store are. All other keys are made with this one.
    """
    typer.echo(asyncio.run(_bootstrap(config, organisation, called, instead_of)))


async def _bootstrap(config: Path, organisation: str, called: str, instead_of: str | None) -> str:
    settings = load_settings(config)
    pepper = load_or_create_pepper(settings.pepper_file)
    store = Store.connect(store_url(settings), timeout_s=STORE_TIMEOUT_S)
    try:
        keys, audit = KeyStore(store, pepper), AuditLog(store, pepper)
        if instead_of is not None:
            lost = await keys.get(instead_of)
            if lost is None:
                raise CallFailed(f"there is no key {instead_of}")
            async with audit.changing(_deed(lost.tenant, "key.revoke", instead_of)):
                await keys.revoke(instead_of)
        key_id = keys.new_id()
        async with audit.changing(_deed(organisation, "key.bootstrap", key_id)):
            token, _ = await keys.bootstrap(organisation, called, key_id)
        return token
    except AdminExists as error:
        raise CallFailed(f"{error}: --instead-of KEY_ID") from None
    finally:
        await store.close()


def _deed(tenant: str, action: str, key_id: str) -> Deed:
    return Deed(tenant, OPERATOR, PLATFORM, OPERATOR, action, f"key/{key_id}", request_id="")
