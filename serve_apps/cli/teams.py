"""`clustergraph teams`: parts of an organisation, and what they may spend."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_apps.api.admin.teams import TeamDeleted, TeamList, TeamObject
from serve_apps.cli.admin import (
    AFTER,
    AS_JSON,
    CONCURRENT,
    DOLLARS,
    LIMIT,
    NAME,
    ORGANISATION,
    RPM,
    SUSPENDED,
    TPD,
    TPM,
    AdminClient,
    given,
    in_body,
    limits_given,
    name,
    show,
    show_limits,
)
from serve_apps.cli.options import LOCAL_URL, URL

app = typer.Typer(help="Teams of an organisation.", no_args_is_help=True)
COLUMNS = ("team", "organisation", "name", "limits", "state")

TeamId = Annotated[str, typer.Argument(metavar="TEAM", help="Its id.")]


@app.command()
def create(
    team: TeamId,
    organisation: ORGANISATION = None,
    called: NAME = None,
    rpm: RPM = None,
    tpm: TPM = None,
    concurrent: CONCURRENT = None,
    per_day: TPD = None,
    dollars: DOLLARS = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Make a team. Its limits are for all its keys together."""
    limits = in_body(limits_given(rpm, tpm, concurrent, per_day, dollars))
    body = given(id=team, organisation=organisation, name=called) | limits
    made = AdminClient(url).send("POST", "teams", body, TeamObject)
    show(made, as_json, COLUMNS, [_row(made)])


@app.command(name="list")
def list_teams(
    organisation: ORGANISATION = None,
    limit: LIMIT = 100,
    after: AFTER = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """List the teams of an organisation."""
    page = AdminClient(url).get("teams", TeamList, organisation=organisation, limit=limit, after=after)
    show(page, as_json, COLUMNS, map(_row, page.data))


@app.command(name="set")
def set_team(
    team: TeamId,
    organisation: ORGANISATION = None,
    called: NAME = None,
    suspended: SUSPENDED = None,
    rpm: RPM = None,
    tpm: TPM = None,
    concurrent: CONCURRENT = None,
    per_day: TPD = None,
    dollars: DOLLARS = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Change a team: what is not said stays as it is."""
    limits = in_body(limits_given(rpm, tpm, concurrent, per_day, dollars))
    body = given(name=called, suspended=suspended) | limits
    path = f"teams/{name(team)}"
    changed = AdminClient(url).send("PATCH", path, body, TeamObject, organisation=organisation)
    show(changed, as_json, COLUMNS, [_row(changed)])


@app.command()
def delete(team: TeamId, organisation: ORGANISATION = None, url: URL = LOCAL_URL) -> None:
    """Delete a team: its keys are refused, and its id is not given again."""
    path = f"teams/{name(team)}"
    gone = AdminClient(url).send("DELETE", path, None, TeamDeleted, organisation=organisation)
    typer.echo(f"{gone.id} of {gone.organisation} is deleted")


def _row(team: TeamObject) -> tuple[str, ...]:
    state = "suspended" if team.suspended else "active"
    return team.id, team.organisation, team.name, show_limits(team.limits), state
