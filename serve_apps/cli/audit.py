"""`clustergraph audit`: who changed what, and whether the log of it is whole."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_apps.api.admin.audit import AuditEntry, AuditHead, AuditPage, AuditVerdict
from serve_apps.cli.admin import AFTER, AS_JSON, LIMIT, AdminClient, given, moment, show
from serve_apps.cli.options import LOCAL_URL, URL

app = typer.Typer(help="The audit log: list it, verify it, print an anchor of it.", no_args_is_help=True)
COLUMNS = ("number", "at", "actor", "role", "action", "object", "changed", "outcome")

LOG = Annotated[
    str | None,
    typer.Option("--org", help="Of this organisation; '-' is the platform. Default: that of the key."),
]


@app.command(name="list")
def list_entries(
    organisation: LOG = None,
    limit: LIMIT = 20,
    after: AFTER = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """List what was done, the newest first."""
    page = AdminClient(url).get("audit", AuditPage, organisation=organisation, limit=limit, after=after)
    show(page, as_json, COLUMNS, map(_row, page.data))


@app.command()
def verify(
    organisation: LOG = None,
    anchor: Annotated[str | None, typer.Option(help="What `audit head` printed before.")] = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Look at every entry. Exits with 1 where one was edited, moved, put in or taken out."""
    verdict = AdminClient(url).get("audit/verify", AuditVerdict, organisation=organisation, anchor=anchor)
    state = "sound" if verdict.sound else f"broken at entry {verdict.first_bad}: {verdict.reason}"
    row = (verdict.organisation, str(verdict.entries), state)
    show(verdict, as_json, ("organisation", "entries as written", "log"), [row])
    raise typer.Exit(int(not verdict.sound))


@app.command()
def head(organisation: LOG = None, url: URL = LOCAL_URL) -> None:
    """Print an anchor: how far the log has come. Keep it where nobody reaches who reaches the store."""
    anchor = AdminClient(url).get("audit/head", AuditHead, organisation=organisation).anchor
    if anchor is None:
        typer.echo("the log is empty", err=True)
        raise typer.Exit(1)
    typer.echo(anchor)


@app.command()
def restart(organisation: LOG = None, url: URL = LOCAL_URL) -> None:
    """Put a broken log aside, in the store, and begin another. Until then nothing can be changed."""
    begun = AdminClient(url).send("POST", "audit/restart", given(organisation=organisation), AuditHead)
    typer.echo(begun.anchor)


def _row(entry: AuditEntry) -> tuple[str, ...]:
    outcome = entry.outcome if entry.of is None else f"{entry.outcome}: {entry.of}"
    return (
        str(entry.sequence),
        moment(entry.at),
        entry.actor,
        entry.actor_role,
        entry.action,
        entry.object,
        ", ".join(entry.changed),
        outcome,
    )
