"""Structs that are encoded the same whether a default was left out or written."""

from __future__ import annotations

import msgspec


class Canonical(msgspec.Struct, frozen=True):
    """Where defaults are omitted, msgspec omits what is the very default, and not what equals it."""

    def __post_init__(self) -> None:
        defaults = self.__struct_defaults__
        for name, default in zip(self.__struct_fields__[-len(defaults) :], defaults, strict=False):
            value = getattr(self, name)
            if value is not default and type(value) is type(default) and value == default:
                msgspec.structs.force_setattr(self, name, default)
