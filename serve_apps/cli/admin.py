"""What the commands of administrators share: their client, limits as options, and how answers are shown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_apps.api.admin.limits import LimitsObject
from serve_apps.cli.calls import CallFailed, GatewayClient

VARIABLE = "CLUSTERGRAPH_KEY"
DAY_S = 24 * 3600
NONE = "none"
"""Said in place of a limit: there is to be none."""

ORGANISATION = Annotated[str | None, typer.Option("--org", help="An organisation. Default: that of the key.")]
LIMIT = Annotated[int, typer.Option(min=1, max=100, help="How many to list.")]
AFTER = Annotated[str | None, typer.Option(help="Only what comes behind this one.")]
AS_JSON = Annotated[bool, typer.Option("--json", help="The gateway's own answer, for programs.")]
NAME = Annotated[str | None, typer.Option("--name", help="What people call it.")]
SUSPENDED = Annotated[
    bool | None, typer.Option("--suspend/--resume", help="Refuse all its keys, or let them call again.")
]

RPM = Annotated[str | None, typer.Option("--rpm", metavar="N|none", help="Requests a minute.")]
TPM = Annotated[str | None, typer.Option("--tpm", metavar="N|none", help="Tokens a minute.")]
CONCURRENT = Annotated[
    str | None, typer.Option("--concurrent", metavar="N|none", help="Requests at the same time.")
]
TPD = Annotated[str | None, typer.Option("--tokens-per-day", metavar="N|none", help="Tokens a day, UTC.")]
DOLLARS = Annotated[
    str | None, typer.Option("--dollars-per-month", metavar="D|none", help="US dollars a month, as 12.50.")
]


class AdminClient(GatewayClient):
    """The gateway's admin API. The key is in the environment: what stands in arguments, all users of the
    machine can read. Raises `CallFailed`."""

    def __init__(self, url: str) -> None:
        key = os.environ.get(VARIABLE)
        if not key:
            raise CallFailed(
                f"no key: export {VARIABLE}, with that of an admin or owner; `clustergraph keys bootstrap` "
                "makes the first"
            )
        super().__init__(url, key)

    def get(self, path: str, kind: type[Any], **query: Any) -> Any:
        return self._call("GET", f"/v1/admin/{path}{_query(query)}", kind)

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None, kind: type[Any], **query: Any
    ) -> Any:
        """With what is given of the body; what is None is left out."""
        return self._call(method, f"/v1/admin/{path}{_query(query)}", kind, body)


def name(text: str) -> str:
    """As a part of a path."""
    return quote(text, safe="")


def given(**values: Any) -> dict[str, Any]:
    """Those that were said."""
    return {key: value for key, value in values.items() if value is not None}


def limits_given(
    rpm: str | None, tpm: str | None, concurrent: str | None, per_day: str | None, dollars: str | None
) -> dict[str, Any]:
    """The limits that were said, as the API takes them. Raises `CallFailed`."""
    counts = {
        "requests_per_minute": ("--rpm", rpm),
        "tokens_per_minute": ("--tpm", tpm),
        "concurrent_requests": ("--concurrent", concurrent),
        "tokens_per_day": ("--tokens-per-day", per_day),
    }
    said: dict[str, Any] = {
        field: _count(option, text) for field, (option, text) in counts.items() if text is not None
    }
    if dollars is not None:
        said["dollars_per_month"] = None if dollars == NONE else dollars
    return said


def in_body(limits: Mapping[str, Any]) -> dict[str, Any]:
    return {"limits": limits} if limits else {}


def _count(option: str, text: str) -> int | None:
    if text == NONE:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise CallFailed(f"{option}: a whole number, or {NONE} for no limit, not {text!r}")
    return int(text)


def show_limits(limits: LimitsObject) -> str:
    """In a cell of a table."""
    parts = (
        (limits.requests_per_minute, "{} requests/min"),
        (limits.tokens_per_minute, "{} tokens/min"),
        (limits.concurrent_requests, "{} at once"),
        (limits.tokens_per_day, "{} tokens/day"),
        (limits.dollars_per_month, "${}/month"),
    )
    return "\n".join(text.format(value) for value, text in parts if value is not None) or "-"


def show(answer: Any, as_json: bool, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """An answer as a table, or as it came."""
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
    if getattr(answer, "has_more", False):
        typer.echo(f"more: --after {answer.last_id}")


def moment(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _query(values: Mapping[str, Any]) -> str:
    said = given(**values)
    return f"?{urlencode(said)}" if said else ""
