"""`clustergraph orgs`: organisations, and what they may spend."""

from __future__ import annotations

from typing import Annotated

import typer

from serve_apps.api.admin.organisations import OrganisationDeleted, OrganisationList, OrganisationObject
from serve_apps.cli.admin import (
    AFTER,
    AS_JSON,
    CONCURRENT,
    DOLLARS,
    LIMIT,
    NAME,
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

app = typer.Typer(help="Organisations: tenants that never see each other's data.", no_args_is_help=True)
COLUMNS = ("organisation", "name", "limits", "state")

OrganisationId = Annotated[str, typer.Argument(metavar="ORGANISATION", help="Its id.")]


@app.command()
def create(
    organisation: OrganisationId,
    called: NAME = None,
    rpm: RPM = None,
    tpm: TPM = None,
    concurrent: CONCURRENT = None,
    per_day: TPD = None,
    dollars: DOLLARS = None,
    as_json: AS_JSON = False,
    url: URL = LOCAL_URL,
) -> None:
    """Make an organisation. Its limits are for all its teams together."""
    limits = in_body(limits_given(rpm, tpm, concurrent, per_day, dollars))
    body = given(id=organisation, name=called) | limits
    made = AdminClient(url).send("POST", "organisations", body, OrganisationObject)
    show(made, as_json, COLUMNS, [_row(made)])


@app.command(name="list")
def list_organisations(
    limit: LIMIT = 100, after: AFTER = None, as_json: AS_JSON = False, url: URL = LOCAL_URL
) -> None:
    """List the organisations that the key may see."""
    page = AdminClient(url).get("organisations", OrganisationList, limit=limit, after=after)
    show(page, as_json, COLUMNS, map(_row, page.data))


@app.command(name="set")
def set_organisation(
    organisation: OrganisationId,
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
    """Change an organisation: what is not said stays as it is."""
    limits = in_body(limits_given(rpm, tpm, concurrent, per_day, dollars))
    body = given(name=called, suspended=suspended) | limits
    path = f"organisations/{name(organisation)}"
    changed = AdminClient(url).send("PATCH", path, body, OrganisationObject)
    show(changed, as_json, COLUMNS, [_row(changed)])


@app.command()
def delete(organisation: OrganisationId, url: URL = LOCAL_URL) -> None:
    """Delete an organisation: its keys are refused, and its id is not given again."""
    path = f"organisations/{name(organisation)}"
    gone = AdminClient(url).send("DELETE", path, None, OrganisationDeleted)
    typer.echo(f"{gone.id} is deleted")


def _row(organisation: OrganisationObject) -> tuple[str, ...]:
    state = "suspended" if organisation.suspended else "active"
    return organisation.id, organisation.name, show_limits(organisation.limits), state
