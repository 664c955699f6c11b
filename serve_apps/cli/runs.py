"""`clustergraph runs`: what became of runs, one of them as a waterfall over its nodes.

vector      embed      ▇▇▇                              0.12 s
search x32  retrieve      ░░░░░░░░                      0.91 s in all, longest 0.20 s
answer      llm                   ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇    1.40 s
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphs.drawing.measured import NodeRun, Taken, show_seconds, taken_by_node
from runtime.records.model import NodeRecord, RunRecord, RunSummary
from serve_apps.cli.calls import CallFailed, GatewayClient
from serve_apps.cli.options import KEY, LOCAL_URL, URL
from serve_apps.cli.run import BACKGROUND, BUDGET, DURABILITY, INPUT, TIMEOUT, options, pairs, tell

app = typer.Typer(help="Runs of graphs: list, show, follow, end, resume and fork them.", no_args_is_help=True)

BAR_COLUMNS = 40
MAX_ALONE = 6
"""Runs of a node inside a `map` or `loop` that have a row each; more of them share one."""
_STYLES = {
    "succeeded": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "running": "green",
    "waiting": "green",
    "suspended": "green",
    "skipped": "dim",
}


class Status(StrEnum):
    """What a run can be."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


RunId = Annotated[str, typer.Argument(help="As `x-run-id` or `runs list` tells it.")]


@app.command(name="list")
def list_runs(
    graph: Annotated[str | None, typer.Option(help="Only runs of this graph.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option(help="Only runs older than this one.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only runs that are so.")] = None,
    url: URL = LOCAL_URL,
    key: KEY = None,
) -> None:
    """List the runs of the key's tenant, the newest first."""
    page = GatewayClient(url, key).runs(limit, graph, after, status)
    table = Table("run", "graph", "version", "began", "status", "seconds", "tokens", "error")
    for run in page.data:
        table.add_row(
            run.run_id,
            run.graph,
            run.version,
            _moment(run.started),
            Text(run.status, _STYLES[run.status]),
            f"{run.seconds:.2f}",
            str(run.usage.total_tokens or ""),
            Text(_error(run)),
        )
    Console().print(table)
    if page.has_more:
        typer.echo(f"older ones: --after {page.last_id}")


@app.command()
def show(run_id: RunId, url: URL = LOCAL_URL, key: KEY = None) -> None:
    """Show a run as a waterfall: when each node began, what it took, what was skipped."""
    record = GatewayClient(url, key).run(run_id)
    console = Console(highlight=False)
    console.print(
        Text(f"{record.graph} {record.version}, {_moment(record.started)}: ")
        + Text(record.status, _STYLES[record.status])
        + Text(f" after {show_seconds(record.seconds)}, {record.usage.total_tokens} tokens")
    )
    if record.error is not None:
        console.print(Text(_error(record), "red"))
    console.print(waterfall(record))
    if record.nodes_left_out:
        console.print(f"and {record.nodes_left_out} more")


@app.command()
def cancel(run_id: RunId, url: URL = LOCAL_URL, key: KEY = None) -> None:
    """End a run, and abort its calls in the engines."""
    typer.echo(f"{run_id}: {GatewayClient(url, key).cancel(run_id).status}")


@app.command()
def follow(
    run_id: RunId,
    after: Annotated[int, typer.Option(min=0, help="Only events behind this number.")] = 0,
    url: URL = LOCAL_URL,
    key: KEY = None,
) -> None:
    """Show the events of a run as they happen, until it is over. Exits with 1 when it failed.

    For a run in the background, or a durable one. A connection that is lost is made again.
    """
    client, last = GatewayClient(url, key), ""
    for number, event in client.events(run_id, after):
        last = event["type"]
        typer.echo(f"{number:>5}  {line_of(event)}")
    raise typer.Exit(int(last == "run_failed"))


@app.command()
def resume(run_id: RunId, timeout: TIMEOUT = None, url: URL = LOCAL_URL, key: KEY = None) -> None:
    """Go on with a run that has failed, was cancelled, or waits for people.

    What was done is not done again. For a run with a durability.
    """
    tell(GatewayClient(url, key).resume(run_id, timeout))


@app.command()
def fork(
    run_id: RunId,
    node: Annotated[
        str | None,
        typer.Option("--from", metavar="NODE", help="Node to begin at, as `answer` or `search[3].each`."),
    ] = None,
    edits: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NODE.PORT=VALUE", help="What that node gives instead. Repeatable."),
    ] = None,
    inputs: INPUT = None,
    background: BACKGROUND = False,
    durability: DURABILITY = None,
    token_budget: BUDGET = None,
    timeout: TIMEOUT = None,
    url: URL = LOCAL_URL,
    key: KEY = None,
) -> None:
    """Run again from a node on: what came before it is not done again.

    Without --from all is run again, or all that follows from other inputs. For a run with a durability.
    """
    outputs: dict[str, Any] = {}
    for place, value in pairs(edits or []).items():
        path, dot, port = place.rpartition(".")
        node = node or path
        if not dot or path != node:
            raise CallFailed(f"--set {place}: it must be {node or 'NODE'}.PORT=VALUE, of the node of --from")
        outputs[port] = value
    body = options(background, durability, token_budget) | {"from": node}
    if outputs:
        body["outputs"] = outputs
    if inputs:
        body["inputs"] = pairs(inputs)
    tell(GatewayClient(url, key).fork(run_id, body, timeout))


def line_of(event: dict[str, Any]) -> str:
    """An event in a line."""
    words = [event["type"].replace("_", " "), event.get("node") or ""]
    match event["type"]:
        case "run_resumed":
            words.append(f"attempt {event['attempt']}, {event['completed']} nodes were done")
        case "run_suspended":
            words.append(f"waits for people at {', '.join(event['waiting'])}")
        case "node_delta":
            words.append(repr(event["text"]))
        case "node_waiting":
            words.append(event["message"])
        case "node_skipped":
            words.append(event["reason"])
        case "node_failed" | "run_failed":
            words.append(event["failure"]["message"])
        case "run_finished":
            words.append(json.dumps(event["outputs"], ensure_ascii=False))
    return " ".join(word for word in words if word)


def waterfall(record: RunRecord) -> Table:
    """A row for each node, in the order in which they began; many runs of one node share a row."""
    table = Table("node", "kind", "time", "took", "tokens", "")
    whole = max([record.seconds, *(node.started + node.seconds for node in record.nodes)])
    for name, nodes, taken in _rows(record.nodes):
        first = nodes[0]
        table.add_row(
            Text(name),
            first.kind,
            _bar(taken, whole, _STYLES[_worst(nodes)]),
            "" if taken.skipped else ", longest ".join(_took(taken)),
            str(sum(node.usage.total_tokens for node in nodes if node.usage is not None) or ""),
            Text(_note(nodes)),
        )
    return table


def _rows(nodes: list[NodeRecord]) -> Iterator[tuple[str, list[NodeRecord], Taken]]:
    by_path = {node.node: node for node in nodes}
    runs = [NodeRun(node.node, node.status, node.started, node.seconds) for node in nodes]
    for path, taken in taken_by_node(runs).items():
        if len(taken.runs) > MAX_ALONE:
            yield f"{path} x{len(taken.runs)}", [by_path[run.path] for run in taken.runs], taken
        else:
            yield from ((run.path, [by_path[run.path]], Taken((run,))) for run in taken.runs)


def _bar(taken: Taken, whole: float, style: str) -> Text:
    """Where in the run it was; lighter where several share the bar."""
    if taken.skipped or whole <= 0:
        return Text()
    began = min(run.started for run in taken.runs)
    start = min(int(BAR_COLUMNS * began / whole), BAR_COLUMNS - 1)
    columns = max(1, min(round(BAR_COLUMNS * (taken.ended - began) / whole), BAR_COLUMNS - start))
    return Text(" " * start + ("▇" if len(taken.runs) == 1 else "░") * columns, style)


def _took(taken: Taken) -> list[str]:
    if len(taken.runs) == 1:
        return [show_seconds(taken.seconds)]
    return [f"{show_seconds(taken.seconds)} in all", show_seconds(taken.longest)]


def _worst(nodes: list[NodeRecord]) -> str:
    found = {node.status for node in nodes}
    return next(
        status
        for status in ("failed", "cancelled", "waiting", "running", "succeeded", "skipped")
        if status in found
    )


def _note(nodes: list[NodeRecord]) -> str:
    first = nodes[0]
    notes: list[str] = [] if len(nodes) > 1 or first.status == "succeeded" else [first.status]
    if first.reason:
        notes.append(first.reason)
    if (most := max(node.attempts for node in nodes)) > 1:
        notes.append(f"{most} attempts")
    if to := next((node.fell_back_to for node in nodes if node.fell_back_to), ""):
        notes.append(f"fell back to {to}")
    return ": ".join(notes)


def _error(run: RunSummary) -> str:
    if run.error is None:
        return ""
    return (f"{run.error.node}: " if run.error.node else "") + run.error.message


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
