"""The command line: `clustergraph`."""

from __future__ import annotations

import sys
from typing import Annotated

import structlog
import typer
from rich.console import Console

from cluster.errors import ClusterError
from cluster.models import prepare
from runtime.store.errors import StoreError
from serve_apps.cli import audit, build, keys, organisations, plan, pools, quotas, run, runs, teams, up, usage
from serve_apps.cli.graphs import app as graphs_app
from serve_apps.cli.options import CONFIG, QUICKSTART
from serve_apps.settings import load_settings

app = typer.Typer(
    help="Cluster-Graph Hybrid: graphs of models, tools and data on a Ray cluster, behind one gateway.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.add_typer(teams.app, name="teams")
app.add_typer(organisations.app, name="orgs")
app.add_typer(quotas.app, name="quotas")
app.add_typer(audit.app, name="audit")
app.add_typer(runs.app, name="runs")
app.add_typer(graphs_app)
app.command(name="run")(run.run)
app.command(name="build")(build.build)
app.command(name="usage")(usage.usage)
app.command(name="plan")(plan.plan)
app.command(name="pools")(pools.pools)
models = typer.Typer(help="The models that come with the package.", no_args_is_help=True)
app.add_typer(models, name="models")

Port = Annotated[int, typer.Option(help="Port of the gateway on 127.0.0.1.", min=1, max=65535)]


@app.command(name="up")
def up_command(config: CONFIG = QUICKSTART, port: Port = 8000) -> None:
    """Start everything on this machine, wait for a first real answer, and stay until Ctrl-C."""
    raise typer.Exit(up.up(config, port, Console()))


@app.command(name="deploy")
def deploy_command(config: CONFIG = QUICKSTART) -> None:
    """Deploy a changed config onto what `up` runs, without losing a request."""
    raise typer.Exit(up.deploy(config, Console()))


@app.command(name="down")
def down_command(config: CONFIG = QUICKSTART) -> None:
    """End whatever an earlier `up` left behind."""
    raise typer.Exit(up.down(config, Console()))


@models.command(name="prepare")
def prepare_command(
    source: Annotated[str, typer.Argument(help="Such as bundled/smollm2.")], config: CONFIG = QUICKSTART
) -> None:
    """Make a bundled model ready; does nothing when it is."""
    typer.echo(prepare(source, load_settings(config).data_dir))


def main() -> None:
    """Entry point: an error on purpose is one line, not a traceback."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.path.append("")  # functions of pipelines may be in the working directory, behind what is installed
    try:
        app()
    except (ClusterError, StoreError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
