"""Several files at once, each before those that use it as a `subgraph`.

a uses b, b uses c          loads c, then b with c known, then a with b known
a uses b, b uses a          refuses both, with the way round: graphs use each other: a → b → a
a uses b@1.0, b is 2.0      loads both versions of b; what uses b gets the newest
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
from graphs.pipeline import Metadata, Pipeline
from graphs.versions import AT, by_reference, found_in, precedence
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
    """Graphs, as NAME or NAME@VERSION."""


def load_together(
    paths: Sequence[FilePath], known: Known, beside: Sequence[FilePath] = ()
) -> dict[FilePath, Outcome]:
    """What became of each of `paths`, in their order. They may use each other, and the files `beside` them.

    Of several files with one name the newest version is used where no other is named (`graphs.versions`).
    Raises nothing for what files say, nor for files that are not there.
    """
    outcomes: dict[FilePath, Outcome] = {}
    files: dict[FilePath, _File] = {}
    for path in paths:
        try:
            files[path] = _read(path)
        except (PipelineError, OSError) as error:
            outcomes[path] = error
    named, uses = _named(files), {use for file in files.values() for use in file.uses}
    if any(found_in(named, use, _version_of) is None and known.graph(use) is None for use in uses):
        files |= {path: file for path in beside[:MAX_BESIDE] if path not in files for file in _found(path)}
    outcomes |= _load(files, known, {path for path in paths if path in files})
    return {path: outcomes[path] for path in paths}


def _load(files: Mapping[FilePath, _File], known: Known, wanted: set[FilePath]) -> dict[FilePath, Outcome]:
    """What became of the files, apart from those that nothing which is wanted uses."""
    named = _named(files)
    references: dict[FilePath, list[str]] = {path: [] for path in files}
    for reference, file in named.items():
        references[file.path].append(reference)
    uses: nx.DiGraph[FilePath] = nx.DiGraph()
    uses.add_nodes_from(files)
    for file in files.values():
        used = (found_in(named, use, _version_of) for use in file.uses)
        uses.add_edges_from((other.path, file.path) for other in used if other is not None)
    needed = uses.subgraph(wanted.union(*(nx.ancestors(uses, path) for path in wanted)))
    called = {path: names[0] if names else files[path].name for path, names in references.items()}
    graphs: dict[str, Pipeline] = dict(known.graphs)
    refused = {**known.refused, **dict(_missing_versions(files, named))}
    outcomes: dict[FilePath, Outcome] = {}
    for knot in _knots(needed, called):
        way_round = _way_round(needed, knot, called)
        if way_round is not None:
            refused |= {name: way_round for path in knot for name in _all_names(files[path], references)}
        for path in knot:
            file = files[path]
            outcomes[path] = outcome = _outcome(file, replace(known, graphs=graphs, refused=refused))
            if isinstance(outcome, Loaded):
                graphs |= dict.fromkeys(references[path], outcome.pipeline)
            else:
                for name in _all_names(file, references):
                    refused.setdefault(name, f"the graph {called[path]} has mistakes of its own")
    return outcomes


def _named(files: Mapping[FilePath, _File]) -> dict[str, _File]:
    """The files by how their graphs are referred to; of two with one name and version the first."""
    versions: dict[tuple[str, str], _File] = {}
    for file in files.values():
        versions.setdefault((file.name, file.version), file)
    return by_reference(versions)


def _version_of(file: _File) -> str:
    return file.version


def _missing_versions(
    files: Mapping[FilePath, _File], named: Mapping[str, _File]
) -> Iterator[tuple[str, str]]:
    """The versions that are used and are not there, though others are, and what to say of each."""
    for use in sorted(use for file in files.values() for use in file.uses):
        name, _, version = use.partition(AT)
        if name in named and found_in(named, use, _version_of) is None:
            there = sorted({file.version for file in files.values() if file.name == name}, key=precedence)
            yield use, f"there is no version {version} of {name}: there is " + ", ".join(there)


def _all_names(file: _File, references: Mapping[FilePath, Sequence[str]]) -> list[str]:
    """Every way in which the graph of a file can be referred to."""
    names = references[file.path]
    return [*names, f"{file.name}{AT}{file.version}"] if names else []


def _knots(uses: nx.DiGraph[FilePath], called: Mapping[FilePath, str]) -> Iterator[list[FilePath]]:
    """The files, those that use each other together, each after those that it uses."""
    condensed = nx.condensation(uses)
    for knot in nx.topological_sort(condensed):
        yield sorted(condensed.nodes[knot]["members"], key=called.__getitem__)


def _way_round(
    uses: nx.DiGraph[FilePath], knot: Sequence[FilePath], called: Mapping[FilePath, str]
) -> str | None:
    """Why graphs that use themselves, through others or not, cannot be used; None where they do not."""
    if len(knot) == 1 and not uses.has_edge(knot[0], knot[0]):
        return None
    edges = nx.find_cycle(uses.subgraph(knot).reverse(), knot[0])
    return "graphs use each other: " + " → ".join(
        called[path] for path in (*(edge[0] for edge in edges), edges[0][0])
    )


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
        version if isinstance(version, str) else Metadata("").version,
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
    """The graphs that are referred to in whatever is written, at any depth."""
    if isinstance(data, list):
        for item in data:
            yield from _uses(item)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key == "subgraph" and isinstance(value, dict) and isinstance(value.get("graph"), str):
                yield value["graph"]
            else:
                yield from _uses(value)
