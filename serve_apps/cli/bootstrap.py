"""`clustergraph keys bootstrap`: the first key of an administrator, straight in the store of a deploy config.

Whoever has the pepper and the store may make one: nobody else can be asked. There is no default key.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from serve_apps.cli.calls import CallFailed
from serve_apps.cli.operator import deed, operating
from serve_apps.cli.options import CONFIG, QUICKSTART
from serve_apps.gateway.keys import AdminExists
from serve_apps.settings import load_settings


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
    async with operating(load_settings(config)) as (keys, audit):
        if instead_of is not None:
            lost = await keys.get(instead_of)
            if lost is None:
                raise CallFailed(f"there is no key {instead_of}")
            async with audit.changing(deed(lost.tenant, "key.revoke", f"key/{instead_of}")):
                await keys.revoke(instead_of)
        key_id = keys.new_id()
        try:
            async with audit.changing(deed(organisation, "key.bootstrap", f"key/{key_id}")):
                token, _ = await keys.bootstrap(organisation, called, key_id)
        except AdminExists as error:
            raise CallFailed(f"{error}: --instead-of KEY_ID") from None
        return token
