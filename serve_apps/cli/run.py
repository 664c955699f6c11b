"""`clustergraph run`: a run of a graph on a gateway, waited for or in the background."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from serve_apps.api.run_answers import RunAccepted, RunAnswer
from serve_apps.cli.calls import CallFailed, GatewayClient
from serve_apps.cli.options import KEY, LOCAL_URL, URL


class Kept(StrEnum):
    """What is kept of a run."""

    NONE = "none"
    EXIT = "exit"
    STEP = "step"


INPUT = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="NAME=VALUE", help="An input; JSON, or else a text. Repeatable."),
]
BACKGROUND = Annotated[
    bool, typer.Option("--background", help="Do not wait: the run goes on by itself. `runs follow` shows it.")
]
DURABILITY = Annotated[
    Kept | None,
    typer.Option(help="What is kept, to go on after a failure and to fork from. Default: as the graph says."),
]
TIMEOUT = Annotated[
    float | None, typer.Option("--timeout", min=0.001, help="Most seconds that the run may take.")
]
BUDGET = Annotated[int | None, typer.Option("--token-budget", min=1, help="Tokens at which it is ended.")]


def run(
    graph: Annotated[str, typer.Argument(metavar="NAME", help="Of a graph that is deployed.")],
    inputs: INPUT = None,
    inputs_file: Annotated[
        Path | None,
        typer.Option("--inputs", help="A JSON file of inputs by name.", dir_okay=False, exists=True),
    ] = None,
    background: BACKGROUND = False,
    durability: DURABILITY = None,
    token_budget: BUDGET = None,
    timeout: TIMEOUT = None,
    url: URL = LOCAL_URL,
    key: KEY = None,
) -> None:
    """Run a graph and print its outputs as JSON."""
    given = {} if inputs_file is None else _mapping(inputs_file)
    body = options(background, durability, token_budget) | {"inputs": given | pairs(inputs or [])}
    tell(GatewayClient(url, key).start(graph, body, timeout))


def options(background: bool, durability: Kept | None, token_budget: int | None) -> dict[str, Any]:
    """Fields of a request that begins a run, as far as they were given."""
    given = {"background": background or None, "durability": durability, "token_budget": token_budget}
    return {name: value for name, value in given.items() if value is not None}


def pairs(given: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` each; a value is JSON, or else a text. Raises `CallFailed`."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise CallFailed(f"{each!r} is not NAME=VALUE")
        found[name] = _value(value)
    return found


def tell(answer: RunAnswer | RunAccepted) -> None:
    """Prints the outputs of a run that is over, and of any other where it is."""
    if isinstance(answer, RunAnswer):
        typer.echo(json.dumps(answer.outputs, ensure_ascii=False, indent=2))
        typer.echo(
            f"run {answer.run_id}: {answer.seconds:.2f} s, {answer.usage.total_tokens} tokens", err=True
        )
    else:
        typer.echo(answer.run_id)
        follow = f"clustergraph runs follow {answer.run_id}"
        typer.echo("waits for people" if answer.status == "suspended" else f"running: {follow}", err=True)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mapping(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CallFailed(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CallFailed(f"{file} must hold an object of inputs by name")
    return found
