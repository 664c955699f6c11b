"""`clustergraph keys`: API keys, straight in the store of a deploy config."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from runtime.store.client import Store
from serve_apps.cli.demo import store_url
from serve_apps.cli.options import CONFIG, QUICKSTART
from serve_apps.gateway.key_tokens import load_or_create_pepper
from serve_apps.gateway.keys import KeyRecord, KeyStore
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.settings import load_settings

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
DAY_S = 24 * 3600

Tenant = Annotated[str, typer.Option(help="Whose key it is; tenants never see each other's data.")]


@asynccontextmanager
async def _keys(config: Path) -> AsyncIterator[KeyStore]:
    settings = load_settings(config)
    store = Store.connect(store_url(settings), timeout_s=2)
    try:
        yield KeyStore(store, load_or_create_pepper(settings.pepper_file))
    finally:
        await store.close()


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    tenant: Tenant = "default",
    requests_per_minute: Annotated[int | None, typer.Option("--rpm", min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option("--tpm", min=1)] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Allow this model or graph/NAME only; may be repeated.")
    ] = None,
    functions: Annotated[
        bool, typer.Option("--functions", help="Let pipelines sent with a call run functions and tools.")
    ] = False,
    expires_days: Annotated[float | None, typer.Option(min=0.0)] = None,
    config: CONFIG = QUICKSTART,
) -> None:
    """Make a key and print it. It is shown this once: the store keeps a hash of it."""

    async def make() -> str:
        async with _keys(config) as keys:
            token, _ = await keys.create(
                tenant,
                name,
                allowance=Allowance(Limits(requests_per_minute, tokens_per_minute)),
                expires=time.time() + expires_days * DAY_S if expires_days is not None else None,
                models=model or None,
                functions=functions,
            )
            return token

    typer.echo(asyncio.run(make()))


@app.command(name="list")
def list_keys(tenant: Tenant = "default", config: CONFIG = QUICKSTART) -> None:
    """List the keys of a tenant."""

    async def read() -> list[KeyRecord]:
        async with _keys(config) as keys:
            return [record async for record in keys.list(tenant)]

    table = Table(
        "id", "name", "created", "expires", "requests/min", "tokens/min", "models", "functions", "state"
    )
    for record in asyncio.run(read()):
        table.add_row(
            record.key_id,
            record.name,
            _day(record.created),
            _day(record.expires),
            str(record.allowance.limits.requests_per_minute or "-"),
            str(record.allowance.limits.tokens_per_minute or "-"),
            ", ".join(record.models) if record.models is not None else "all",
            "yes" if record.functions else "no",
            "revoked" if record.revoked else "active",
        )
    Console().print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id, as `keys list` prints it; not the key itself.")],
    config: CONFIG = QUICKSTART,
) -> None:
    """Refuse a key from now on, on every gateway replica within a second."""

    async def end() -> bool:
        async with _keys(config) as keys:
            return await keys.revoke(key_id)

    if not asyncio.run(end()):
        typer.echo(f"there is no key {key_id}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{key_id} is revoked")


def _day(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M") if seconds is not None else "-"
