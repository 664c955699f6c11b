"""`clustergraph validate` and `clustergraph explain`: is a pipeline right, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from graphs.bindings import references
from graphs.drawing.dot import dot
from graphs.drawing.measured import NodeRun, measured
from graphs.drawing.mermaid import mermaid
from graphs.drawing.picture import Picture, picture_of
from graphs.drawing.svg import TooLarge, svg
from graphs.errors import PipelineError, Problem
from graphs.known import NOTHING_KNOWN, Known
from graphs.loader import Loaded
from graphs.prompt_files import is_prompt, load_prompt_file, load_prompts
from graphs.reference import node_reference
from graphs.schema import language_schema
from graphs.together import load_together
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import STAGES, stages
from runtime.compiler.draft import Draft, inside
from runtime.compiler.explain import differences, show_condition
from runtime.compiler.lower import lower
from runtime.compiler.lowering import bound, segments
from runtime.compiler.picture import picture_of_draft
from runtime.plan import ExecutionPlan, ExecutionStep
from runtime.records.model import RunRecord
from serve_apps.cli.calls import GatewayClient
from serve_apps.cli.options import KEY, LOCAL_URL, URL
from serve_apps.pipelines import catalog, loadable
from serve_apps.settings import load_settings

app = typer.Typer(help="Pipelines.", no_args_is_help=True)

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Check models and indexes against this deploy config.", dir_okay=False),
]


class Form(StrEnum):
    """What a drawing can be written in."""

    MERMAID = "mermaid"
    DOT = "dot"
    SVG = "svg"


_WRITERS: Mapping[Form, Callable[[Picture], str]] = {Form.MERMAID: mermaid, Form.DOT: dot, Form.SVG: svg}
RAY = "ray"
"""What `explain` calls the end of the way, behind all stages."""
ASSUMED = "no --config: models and indexes are taken to exist"


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Files of pipelines and of prompts.")],
    config: Config = None,
) -> None:
    """Print every mistake in pipelines and prompts, with its place. Exits with 1 when there is one."""
    known = _catalog(config)
    wrong = False
    for file in files:
        if _is_prompt(file):
            wrong |= not _prompt_is_right(file)
            continue
        loaded = _load(file, config)
        wrong |= loaded is None or not _compiles(loaded, file, known)
    if known is None:
        typer.echo(ASSUMED)
    raise typer.Exit(int(wrong))


@app.command()
def explain(
    file: Annotated[Path, typer.Argument(help="Pipeline file.")],
    stage: Annotated[
        str | None,
        typer.Option(
            help="Stop after this stage: " + ", ".join(STAGES) + f". Or {RAY}: what the plan becomes on Ray."
        ),
    ] = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option("--diff", help="Print only what is different after the second stage, and why."),
    ] = None,
    config: Config = None,
) -> None:
    """Print what the compiler makes of a pipeline, stage by stage, and why."""
    if stage is not None:
        _check_stage(stage, "--stage", (*STAGES, RAY))
    if diff is not None:
        _check_diff(diff)
    known = _catalog(config)
    _, drafts = _drafts(file, config, STAGES[-1] if stage in (None, RAY) else stage)
    console = Console(markup=False, highlight=False)
    if diff is not None:
        _print_differences(console, drafts, diff)
        return
    if stage == RAY:
        _print_lowering(console, lower(drafts[STAGES[-1]]))
        return
    before = _count(drafts[STAGES[0]])
    for name, draft in drafts.items():
        console.print(_stage_title(name, before, draft), style="bold")
        _print_changes(console, draft)
        before = _count(draft)
    if stage is not None:
        console.print(_draft_table(drafts[stage]))
    else:
        _print_plan(console, lower(drafts[STAGES[-1]]))
    if known is None:
        console.print(ASSUMED)


@app.command()
def draw(
    file: Annotated[Path, typer.Argument(help="Pipeline file.")],
    form: Annotated[Form, typer.Option("--format", help="What to write it in.")] = Form.MERMAID,
    stage: Annotated[
        str | None,
        typer.Option(help="As it is after this stage; else as it is written. " + ", ".join(STAGES) + "."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; else it is printed.", dir_okay=False),
    ] = None,
    config: Config = None,
    run: Annotated[
        str | None,
        typer.Option(help="Colour it by what this run took; dashed is what it skipped."),
    ] = None,
    url: URL = LOCAL_URL,
    key: KEY = None,
) -> None:
    """Draw a pipeline: kinds, types, order, and after the stages what runs where and what takes longest."""
    if stage is not None:
        _check_stage(stage, "--stage")
    loaded, drafts = _drafts(file, config, stage or STAGES[0])
    picture = picture_of(loaded.pipeline) if stage is None else picture_of_draft(drafts[stage])
    if run is not None:
        picture = _in_colours(picture, loaded, GatewayClient(url, key).run(run))
    try:
        text = _WRITERS[form](picture)
    except TooLarge as error:
        typer.echo(f"{file}: error: {error}")
        raise typer.Exit(1) from None
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text)


def _in_colours(picture: Picture, loaded: Loaded, record: RunRecord) -> Picture:
    """The picture with the times of a run of the same graph."""
    about = loaded.pipeline.metadata
    if record.graph != about.name:
        raise typer.BadParameter(f"that is a run of {record.graph}, not of {about.name}", param_hint="--run")
    if record.version != about.version:
        typer.echo(f"warning: the run was of version {record.version}, this is {about.version}", err=True)
    return measured(
        picture, [NodeRun(node.node, node.status, node.started, node.seconds) for node in record.nodes]
    )


@app.command()
def schema() -> None:
    """Print the JSON Schema of the graph language, for editors."""
    typer.echo(json.dumps(language_schema(), indent=2, ensure_ascii=False))


@app.command()
def reference() -> None:
    """Print the reference page of the node kinds."""
    typer.echo(node_reference(), nl=False)


def _check_stage(stage: str, option: str, known: Sequence[str] = STAGES) -> None:
    if stage not in known:
        raise typer.BadParameter(f"{stage!r} is none of " + ", ".join(known), param_hint=option)


def _check_diff(diff: tuple[str, str]) -> None:
    for stage in diff:
        _check_stage(stage, "--diff")
    first, last = diff
    if STAGES.index(first) >= STAGES.index(last):
        raise typer.BadParameter(f"{first} does not come before {last}", param_hint="--diff")


def _drafts(file: Path, config: Path | None, until: str) -> tuple[Loaded, dict[str, Draft]]:
    """The pipeline and its drafts. Ends the command, its problems printed, where there are none."""
    loaded, known = _load(file, config), _catalog(config)
    if loaded is None:
        raise typer.Exit(1)
    try:
        return loaded, stages(loaded.pipeline, known, until=until)
    except PipelineError as error:
        _show([loaded.place(problem) for problem in error.problems], file)
        raise typer.Exit(1) from None


def _print_differences(console: Console, drafts: dict[str, Draft], diff: tuple[str, str]) -> None:
    found = differences(drafts, *diff)
    console.print(f"from {diff[0]} to {diff[1]}: {len(found)} differences", style="bold")
    if found:
        table = Table("node", "what", "why")
        for difference in found:
            table.add_row(difference.node, difference.what, difference.reason)
        console.print(table)


def _catalog(config: Path | None) -> Catalog | None:
    return None if config is None else catalog(load_settings(config))


def _known(file: Path, config: Path | None) -> Known:
    """What the config knows; without one the prompts in the folder `prompts` beside the file."""
    if config is not None:
        return loadable(load_settings(config))
    beside = file.parent / "prompts"
    return Known(prompts=load_prompts([beside])) if beside.is_dir() else NOTHING_KNOWN


def _is_prompt(file: Path) -> bool:
    return file.is_file() and is_prompt(file.read_text(errors="replace"))


def _prompt_is_right(file: Path) -> bool:
    try:
        prompt = load_prompt_file(file)
    except PipelineError as error:
        _show(error.problems, file)
        return False
    labels = "".join(f", {label}" for label in prompt.labels)
    typer.echo(f"{file}: ok: prompt {prompt.name} {prompt.version}{labels}")
    return True


def _load(file: Path, config: Path | None) -> Loaded | None:
    """The pipeline, its warnings printed; None, its problems printed, where there is none."""
    try:
        known = _known(file, config)
    except PipelineError as error:
        _show(error.problems, file)
        return None
    loaded = load_together([file], known, sorted(file.parent.glob("*.yaml")))[file]
    if isinstance(loaded, PipelineError):
        _show(loaded.problems, file)
        return None
    if isinstance(loaded, OSError):
        typer.echo(f"{file}: error: {loaded.strerror}")
        return None
    _show(loaded.warnings, file)
    return loaded


def _compiles(loaded: Loaded, file: Path, known: Catalog | None) -> bool:
    try:
        plan = lower(stages(loaded.pipeline, known)[STAGES[-1]])
    except PipelineError as error:
        _show([loaded.place(problem) for problem in error.problems], file)
        return False
    count = len(loaded.pipeline.nodes)
    typer.echo(f"{file}: ok: {plan.graph} {plan.version}, {count} nodes, plan {plan.hash}")
    return True


def _show(problems: list[Problem], file: Path) -> None:
    """Each problem, the line of its file, a mark below the words at fault, and the hint."""
    for problem in problems:
        place, file = problem.position, Path(problem.file or file)
        if place is None:
            typer.echo(f"{file}: {problem.severity}: {problem.message}")
            continue
        typer.echo(f"{file}:{place.line}:{place.column}: {problem.severity}: {problem.message}")
        lines = file.read_text(errors="replace").split("\n")
        line = lines[place.line - 1] if place.line <= len(lines) else ""
        if line.strip():
            indent = "".join(char if char == "\t" else " " for char in line[: place.column - 1])
            length = min(place.length, max(1, len(line) - place.column + 1))
            typer.echo(f"  {line}\n  {indent}{'^' * length}")
        if problem.hint:
            typer.echo(f"  hint: {problem.hint}")


def _stage_title(name: str, before: int, draft: Draft) -> str:
    count = _count(draft)
    return f"{name}: {count} nodes" + (f", {before - count} fewer" if count < before else "")


def _count(draft: Draft) -> int:
    """The nodes, those inside others too."""
    return sum(1 for _ in draft.everything())


def _print_changes(console: Console, draft: Draft) -> None:
    if not draft.changes:
        console.print("  nothing to do\n")
        return
    table = Table("node", "what", "why")
    for change in draft.changes:
        table.add_row(change.node, change.what, change.reason)
    console.print(table)


def _draft_table(draft: Draft) -> Table:
    """The nodes as a stage left them."""
    table = Table("node", "kind", "takes", "when", "group", "back end", "priority")
    for name, node in draft.everything():
        taken = dict.fromkeys(str(ref) for binding in node.inputs.values() for ref in references(binding))
        taken |= dict.fromkeys(f"after {other}" for other in node.after)
        when = "" if node.when is None else show_condition(node.when)
        place = f"pool {node.pool}" if node.pool else node.backend
        table.add_row(
            name, node.spec.kind(), "\n".join(taken), when, node.group or "", place, str(node.priority)
        )
    return table


def _steps(steps: Sequence[ExecutionStep], path: str) -> Iterator[tuple[str, ExecutionStep]]:
    """Every step, those in bodies too, with what its names begin with."""
    for step in steps:
        yield path, step
        for node in step.nodes:
            for key, body in node.bodies.items():
                yield from _steps(body.steps, inside(path + node.name, key))


def _print_lowering(console: Console, plan: ExecutionPlan) -> None:
    console.print("Serve deployments", style="bold")
    for holder, held in bound(plan):
        console.print(f"  {holder} ─► {held}")
    table = Table("nodes", "becomes", "on", "why")
    for segment in segments(plan):
        table.add_row("\n".join(segment.nodes), segment.becomes, segment.on, segment.reason)
    console.print(table)


def _print_plan(console: Console, plan: ExecutionPlan) -> None:
    table = Table("step", "kind", "back end", "priority", "waits for", "tokens at most", "to the end")
    for path, step in _steps(plan.steps, ""):
        table.add_row(
            "\n".join(path + node.name for node in step.nodes),
            "\n".join(node.spec.kind() for node in step.nodes),
            f"pool {step.pool}" if step.pool else step.backend,
            str(step.priority),
            "\n".join(path + needed for needed in step.depends_on),
            str(step.token_bound or ""),
            f"{step.remaining_s:.2f} s",
        )
    console.print(f"plan {plan.hash}: {plan.graph} {plan.version}", style="bold")
    console.print(table)
    console.print(f"tokens of a run at most: {plan.token_bound}")
    for model, demand in plan.demand.items():
        tokens = f"{demand.prompt_tokens:.0f} tokens in, {demand.output_tokens:.0f} out"
        console.print(f"expected of {model}: {demand.visits:g} calls, {tokens}")
    for maker, taker in plan.colocate:
        console.print(f"{taker} is best near {maker}, of which it takes what it reads")
    if plan.chat is not None:
        how = f"streamed from {plan.chat.node}" if plan.chat.node else "in one piece"
        console.print(f"as a chat: {plan.chat.input} in, {plan.chat.output} out, {how}")
