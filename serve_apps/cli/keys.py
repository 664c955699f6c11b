"""`clustergraph keys`: who may call, over the gateway's admin API."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

import typer

from graphs.durations import parse_duration
from serve_apps.api.admin.keys import KeyList, KeyObject, KeyWithSecret
from serve_apps.cli.admin import (
    AFTER,
    AS_JSON,
    CONCURRENT,
    DAY_S,
    DOLLARS,
    LIMIT,
    NAME,
    NONE,
    ORGANISATION,
    RPM,
    TPD,
    TPM,
    AdminClient,
    given,
    in_body,
    limits_given,
    moment,
    name,
    show,
    show_limits,
)
from serve_apps.cli.bootstrap import bootstrap
from serve_apps.cli.calls import CallFailed
from serve_apps.cli.options import LOCAL_URL, URL

app = typer.Typer(help="API keys: make, list, change, rotate and revoke them.", no_args_is_help=True)
app.command()(bootstrap)
COLUMNS = ("key", "name", "organisation", "team", "role", "limits", "models", "expires", "last used", "state")

KeyId = Annotated[
    str, typer.Argument(metavar="KEY_ID", help="The id, as `keys list` prints it; not the key itself.")
]
MODELS = Annotated[
    list[str] | None,
    typer.Option("--model", help="Only this model, graph/NAME or index/NAME. Repeatable; `all` for all."),
]
ENDPOINTS = Annotated[
    list[str] | None,
    typer.Option("--endpoint", help="Only this path, as /v1/chat/*. Repeatable; `all` for all."),
]
ROLE = Annotated[str | None, typer.Option("--role", help="admin, owner, member or service.")]
FUNCTIONS = Annotated[
    bool | None,
    typer.Option(
        "--functions/--no-functions", help="Whether pipelines sent with a call may run functions and tools."
    ),
]
EXPIRES_DAYS = Annotated[
    str | None, typer.Option("--expires-days", metavar="DAYS|none", help="How long from now it works.")
]
ALL = "all"


@app.command()
def create(
    called: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    organisation: ORGANISATION = None,
    team: Annotated[str | None, typer.Option(help="A team of the organisation.")] = None,
    role: ROLE = None,
    models: MODELS = None,
    endpoints: ENDPOINTS = None,
    functions: FUNCTIONS = None,
    expires_days: EXPIRES_DAYS = None,
    rpm: RPM = None,
    tpm: TPM = None,
    concurrent: CONCURRENT = None,
    per_day: TPD = None,
    dollars: DOLLARS = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Make a key and print it. It is shown this once: the store keeps a hash of it."""
    limits = in_body(limits_given(rpm, tpm, concurrent, per_day, dollars))
    what = given(organisation=organisation, team=team, role=role, functions=functions)
    body = {"name": called} | what | _lists(models, endpoints) | _expires(expires_days) | limits
    _show_secret(AdminClient(url).send("POST", "keys", body, KeyWithSecret), as_json)


@app.command(name="list")
def list_keys(
    organisation: ORGANISATION = None,
    team: Annotated[str | None, typer.Option(help="Only keys of this team.")] = None,
    limit: LIMIT = 100,
    after: AFTER = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """List the keys that yours may see, the oldest first."""
    query = given(organisation=organisation, team=team, limit=limit, after=after)
    page = AdminClient(url).get("keys", KeyList, **query)
    show(page, as_json, COLUMNS, map(_row, page.data))


@app.command()
def get(key_id: KeyId, as_json: AS_JSON = False, url: URL = LOCAL_URL) -> None:
    """Show one key."""
    key = AdminClient(url).get(f"keys/{name(key_id)}", KeyObject)
    show(key, as_json, COLUMNS, [_row(key)])


@app.command()
def change(
    key_id: KeyId,
    called: NAME = None,
    role: ROLE = None,
    models: MODELS = None,
    endpoints: ENDPOINTS = None,
    functions: FUNCTIONS = None,
    expires_days: EXPIRES_DAYS = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Change what a key may do: what is not said stays as it is. `keys limits` changes what it may spend."""
    what = given(name=called, role=role, functions=functions)
    body = what | _lists(models, endpoints) | _expires(expires_days)
    key = AdminClient(url).send("PATCH", f"keys/{name(key_id)}", body, KeyObject)
    show(key, as_json, COLUMNS, [_row(key)])


@app.command()
def limits(
    key_id: KeyId,
    rpm: RPM = None,
    tpm: TPM = None,
    concurrent: CONCURRENT = None,
    per_day: TPD = None,
    dollars: DOLLARS = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Change what a key may spend: what is not said stays as it is. `quotas` does so for single models."""
    body = in_body(limits_given(rpm, tpm, concurrent, per_day, dollars))
    key = AdminClient(url).send("PATCH", f"keys/{name(key_id)}", body, KeyObject)
    show(key, as_json, COLUMNS, [_row(key)])


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long the old secret goes on, as 24h or 30m. Default: not at all."
        ),
    ] = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Give a key a new secret and print it. What the key may do and has spent stays as it is."""
    try:
        seconds = 0.0 if overlap is None else parse_duration(overlap)
    except ValueError as error:
        raise CallFailed(f"--overlap: {error}") from None
    path = f"keys/{name(key_id)}/rotate"
    _show_secret(AdminClient(url).send("POST", path, {"overlap_seconds": seconds}, KeyWithSecret), as_json)


@app.command()
def revoke(key_id: KeyId, url: URL = LOCAL_URL) -> None:
    """Refuse a key from now on, on every gateway within two seconds. It cannot be taken back."""
    key = AdminClient(url).send("POST", f"keys/{name(key_id)}/revoke", None, KeyObject)
    typer.echo(f"{key.id} is revoked")


def _lists(models: list[str] | None, endpoints: list[str] | None) -> dict[str, Any]:
    """What was said of them; `all` is no list."""
    said = {"models": models, "endpoints": endpoints}
    return {key: None if ALL in values else values for key, values in said.items() if values}


def _expires(days: str | None) -> dict[str, Any]:
    if days is None:
        return {}
    if days == NONE:
        return {"expires": None}
    try:
        lasts = float(days)
    except ValueError:
        lasts = math.nan
    if not math.isfinite(lasts):
        raise CallFailed(f"--expires-days: a number of days, or {NONE}, not {days!r}")
    return {"expires": time.time() + lasts * DAY_S}


def _show_secret(made: KeyWithSecret, as_json: bool) -> None:
    """The key alone, for `KEY=$(clustergraph keys create ci)`."""
    if as_json:
        show(made, as_json, (), ())
    else:
        typer.echo(made.key)


def _row(key: KeyObject) -> tuple[str, ...]:
    return (
        key.id,
        key.name,
        key.organisation,
        key.team,
        key.role,
        show_limits(key.limits),
        "all" if key.models is None else "\n".join(key.models) or "none",
        moment(key.expires),
        moment(key.last_used),
        key.state,
    )
