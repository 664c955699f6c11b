"""What is deployed, as far as a compilation must know it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cluster.interface import ModelInfo


class IndexInfo(msgspec.Struct, frozen=True):
    """An index that pipelines may search."""

    name: str
    model: str
    """The model that embedded it, and so must embed what is looked for in it."""


class Catalog(msgspec.Struct, frozen=True):
    """What a pipeline may name."""

    models: Mapping[str, ModelInfo]
    indexes: Mapping[str, IndexInfo]
    hosts: frozenset[str] = frozenset()
    """Web servers that may be called, as `api.example.com` or `localhost:8080`."""
    secrets: frozenset[str] = frozenset()
    """Environment variables that headers may be taken from."""
    servers: frozenset[str] = frozenset()
    """MCP servers."""
    timings: Mapping[str, Mapping[str, float]] = {}
    """By graph and path of a node, as `search.each`: mean seconds that it took in earlier runs."""
