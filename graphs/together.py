"""Several files at once, each before those that use it as a `subgraph`.

a uses b, b uses c          loads c, then b with c known, then a with b known
a uses b, b uses a          refuses both, with the way round: graphs use each other: a → b → a
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import networkx as nx

from graphs.errors import PipelineError
from graphs.known import Known
from graphs.loader import Loaded, load_tree, read_tree
from graphs.pipeline import Pipeline
from graphs.versions import precedence
from graphs.yaml_tree import YamlTree

Outcome = Loaded | PipelineError | OSError

MAX_BESIDE = 256
"""Files that are looked at for the graphs that others use."""


class _File(NamedTuple):
    path: FilePath
    tree: YamlTree
    name: str
    """Empty where it says none."""
    version: str
    uses: frozenset[str]
    """Names of graphs."""


def load_together(
    paths: Sequence[FilePath], known: Known, beside: Sequence[FilePath] = ()
) -> dict[FilePath, Outcome]:
    """What became of each of `paths`, in their order. They may use each other, and the files `beside` them.

    Of several files with one name the newest version is used (`graphs.versions`). Raises nothing for what
    files say, nor for files that are not there.
    """
    outcomes: dict[FilePath, Outcome] = {}
    files: dict[FilePath, _File] = {}
    for path in paths:
        try:
            files[path] = _read(path)
        except (PipelineError, OSError) as error:
            outcomes[path] = error
    named = {file.name for file in files.values()}.union(known.graphs)
    if any(file.uses - named for file in files.values()):
        files |= {path: file for path in beside[:MAX_BESIDE] if path not in files for file in _found(path)}
    outcomes |= _load(files, known, {file.name for path, file in files.items() if path in paths})
    return {path: outcomes[path] for path in paths}


def _load(files: Mapping[FilePath, _File], known: Known, wanted: set[str]) -> dict[FilePath, Outcome]:
    """What became of the files, apart from those that nothing which is wanted uses."""
    by_name: dict[str, _File] = {}
    for file in files.values():
        known_as = by_name.setdefault(file.name, file)
        if precedence(file.version) > precedence(known_as.version):
            by_name[file.name] = file
    uses: nx.DiGraph[str] = nx.DiGraph()
    uses.add_nodes_from(by_name)
    for file in by_name.values():
        uses.add_edges_from((name, file.name) for name in file.uses if name in by_name)
    needed = uses.subgraph(wanted.union(*(nx.ancestors(uses, name) for name in wanted)))
    graphs: dict[str, Pipeline] = dict(known.graphs)
    refused = dict(known.refused)
    outcomes: dict[FilePath, Outcome] = {}
    for names in _knots(needed):
        refused |= _ways_round(needed, names)
        for name in names:
            file = by_name[name]
            outcomes[file.path] = outcome = _outcome(file, replace(known, graphs=graphs, refused=refused))
            if isinstance(outcome, Loaded):
                graphs[name] = outcome.pipeline
            else:
                refused.setdefault(name, f"the graph {name} has mistakes of its own")
    for file in files.values():
        if file.path not in outcomes and file.name in wanted:
            outcomes[file.path] = _outcome(file, replace(known, graphs=graphs, refused=refused))
    return outcomes


def _knots(uses: nx.DiGraph[str]) -> Iterator[list[str]]:
    """The graphs, those that use each other together, each after those that it uses."""
    condensed = nx.condensation(uses)
    for knot in nx.topological_sort(condensed):
        yield sorted(condensed.nodes[knot]["members"])


def _ways_round(uses: nx.DiGraph[str], names: Sequence[str]) -> dict[str, str]:
    """For each graph that uses itself, through others or not, why it cannot be used."""
    if len(names) == 1 and not uses.has_edge(names[0], names[0]):
        return {}
    edges = nx.find_cycle(uses.subgraph(names).reverse(), names[0])
    path = " → ".join([edge[0] for edge in edges] + [edges[0][0]])
    return dict.fromkeys(names, f"graphs use each other: {path}")


def _outcome(file: _File, known: Known) -> Outcome:
    try:
        return load_tree(file.tree, str(file.path), known)
    except PipelineError as error:
        return error


def _read(path: FilePath) -> _File:
    """Raises `PipelineError` and `OSError`."""
    tree = read_tree(path)
    data = tree.data if isinstance(tree.data, dict) else {}
    about = data.get("metadata")
    name, version = (about.get("name"), about.get("version")) if isinstance(about, dict) else (None, None)
    return _File(
        path,
        tree,
        name if isinstance(name, str) else "",
        version if isinstance(version, str) else "",
        frozenset(_uses(data.get("nodes"))),
    )


def _found(path: FilePath) -> Iterator[_File]:
    """A file that may hold a graph; nothing where it cannot be read."""
    try:
        file = _read(path)
    except (PipelineError, OSError):
        return
    if file.name:
        yield file


def _uses(data: Any) -> Iterator[str]:
    """The names of graphs in whatever is written, at any depth."""
    if isinstance(data, list):
        for item in data:
            yield from _uses(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key == "subgraph" and isinstance(value, dict) and isinstance(value.get("graph"), str):
                yield value["graph"]
            else:
                yield from _uses(value)
