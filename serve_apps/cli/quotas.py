"""`clustergraph quotas`: what keys, teams and organisations may spend, and what is left of it now."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serve_apps.api.admin.quotas import LimitLeft, QuotaReport
from serve_apps.cli.admin import (
    AS_JSON,
    CONCURRENT,
    DOLLARS,
    RPM,
    TPD,
    TPM,
    AdminClient,
    limits_given,
    show,
)
from serve_apps.cli.calls import CallFailed
from serve_apps.cli.options import LOCAL_URL, URL

app = typer.Typer(help="Limits of keys, teams and organisations.", no_args_is_help=True)
COLUMNS = ("whose", "id", "for", "limit", "most", "left", "all free in")

KEY_ID = Annotated[str | None, typer.Option("--id", help="Of a key, by its id. Default: your own key.")]
TEAM = Annotated[str | None, typer.Option("--team", help="Of a team.")]
ORGANISATION = Annotated[
    str | None, typer.Option("--org", help="Of an organisation; with --team, that of the team.")
]


@app.command(name="show")
def show_quotas(
    key_id: KEY_ID = None,
    team: TEAM = None,
    organisation: ORGANISATION = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Show every limit that counts for a key, a team or an organisation, and what is left of it now."""
    report = AdminClient(url).get("quotas", QuotaReport, key=key_id, team=team, organisation=organisation)
    show(report, as_json, COLUMNS, map(_row, report.data))


@app.command(name="set")
def set_quotas(
    key_id: KEY_ID = None,
    team: TEAM = None,
    organisation: ORGANISATION = None,
    model: Annotated[
        str | None, typer.Option("--model", help="For this model or graph/NAME alone, beside the others.")
    ] = None,
    rpm: RPM = None,
    tpm: TPM = None,
    concurrent: CONCURRENT = None,
    per_day: TPD = None,
    dollars: DOLLARS = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Change limits: what is not said stays as it is, `none` takes a limit away."""
    limits = limits_given(rpm, tpm, concurrent, per_day, dollars)
    if not limits:
        raise CallFailed("say which limit: --rpm, --tpm, --concurrent, --tokens-per-day, --dollars-per-month")
    body: dict[str, Any] = {"limits": limits} if model is None else {"limits_by_model": {model: limits}}
    whose = {"key": key_id, "team": team, "organisation": organisation}
    report = AdminClient(url).send("PATCH", "quotas", body, QuotaReport, **whose)
    show(report, as_json, COLUMNS, map(_row, report.data))


def _row(limit: LimitLeft) -> tuple[str, ...]:
    free = "-" if limit.reset_seconds is None else f"{limit.reset_seconds:.0f} s"
    words = limit.name.replace("_", " ")
    everything = "everything" if limit.model is None else limit.model
    return limit.level, limit.id, everything, words, str(limit.limit), str(limit.remaining), free
