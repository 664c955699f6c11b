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
    """The models and indexes that a pipeline may name."""

    models: Mapping[str, ModelInfo]
    indexes: Mapping[str, IndexInfo]
