"""`clustergraph build`: the file that a cluster is told with what to run, from the deploy config."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cluster.errors import ConfigError
from graphs.errors import PipelineError
from serve_apps.cli.options import CONFIG
from serve_apps.manifests.bundle import bundle
from serve_apps.manifests.rayservice import DATA_DIR, Images, manifests
from serve_apps.manifests.serve_config import revision_of, serve_config
from serve_apps.pipelines import load_plans
from serve_apps.scaling import scaling_of
from serve_apps.settings import load_settings

IMAGE = f"cluster-graph-hybrid:{metadata.version('cluster-graph-hybrid')}"


def build(
    config: CONFIG,
    kuberay: Annotated[bool, typer.Option("--kuberay", help="A RayService for Kubernetes.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it. Default: standard output.")
    ] = None,
    config_on_head: Annotated[
        str | None,
        typer.Option(
            help="Where the config is on the cluster's head. Default: where it is here.", metavar="PATH"
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Addresses of each node that it listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the gateway.", min=1, max=65535)] = 8000,
    cpu_image: Annotated[str, typer.Option(help="Of pods without GPUs.", metavar="NAME")] = f"{IMAGE}-cpu",
    gpu_image: Annotated[str, typer.Option(help="Of pods with GPUs.", metavar="NAME")] = f"{IMAGE}-gpu",
) -> None:
    """Write the config file of Ray Serve, for `serve deploy`; with --kuberay a RayService for Kubernetes."""
    settings = load_settings(config)
    try:
        plans = load_plans(settings)  # every mistake in a graph shows now, not on the cluster
    except PipelineError as error:
        raise ConfigError(str(error)) from error
    scaling = scaling_of(settings, plans)
    if kuberay:
        images = Images(cpu_image, gpu_image)
        documents = manifests(settings, bundle(config, DATA_DIR), images, scaling)
    else:
        there = config_on_head or str(config.resolve())
        revision = revision_of([config.read_bytes()], [plan.hash for plan in plans.values()])
        documents = [serve_config(there, host=host, port=port, revision=revision, scaling=scaling)]
    text = written(documents)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text)


def written(documents: list[dict[str, Any]]) -> str:
    """As YAML, texts of several lines as such."""
    return yaml.dump_all(documents, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=110)


class _Readable(yaml.SafeDumper):
    """Writes no anchors, and texts of several lines line by line."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Readable.add_representer(str, _text)
