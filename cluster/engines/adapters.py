"""The adapters that one engine may load, and those that it has: each is loaded by the first call for it.

declared {legal, medical}   loaded {}
a call for legal, two at once  ─►  one load; loaded {legal}
declared {legal elsewhere}     ─►  loaded {}: the next call loads it anew
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping

import structlog

from cluster.errors import EngineFailed

log = structlog.get_logger(__name__)


class Adapters:
    """`load(name, source)` and `unload(name)` are the engine's; what `load` raises fails the call."""

    def __init__(
        self, load: Callable[[str, str], Awaitable[None]], unload: Callable[[str], Awaitable[None]]
    ) -> None:
        self._load = load
        self._unload = unload
        self._declared: dict[str, str] = {}
        self._loaded: dict[str, str] = {}
        self._lock = asyncio.Lock()

    @property
    def loaded(self) -> list[str]:
        """Their names, in the order in which they were loaded."""
        return list(self._loaded)

    def salt(self, tenant: str, model: str) -> str:
        """What keeps the cached prefixes of tenants apart, and those of an adapter from what another of its
        name left. Nothing where there is no tenant and no adapter."""
        source = self._declared.get(model)
        if source is None:
            return tenant
        return hashlib.blake2b(f"{tenant}\0{source}".encode(), digest_size=16).hexdigest()

    async def declare(self, sources: Mapping[str, str]) -> None:
        """From now on these may be loaded, by name, and no others. What runs on another goes on."""
        async with self._lock:
            self._declared = dict(sources)
            for name, source in list(self._loaded.items()):
                if self._declared.get(name) != source:
                    del self._loaded[name]
                    await self._unload(name)

    async def ready(self, model: str) -> None:
        """Returns once the engine has the adapter; at once where the name is that of no adapter.

        Raises `EngineFailed` where it cannot be loaded. Why is the operator's matter, and is logged.
        """
        if model not in self._declared or model in self._loaded:
            return
        async with self._lock:
            source = self._declared.get(model)
            if source is None or model in self._loaded:
                return
            try:
                await self._load(model, source)
            except (OSError, ValueError) as error:
                log.exception("adapter_not_loaded", adapter=model, source=source)
                raise EngineFailed(f"the adapter {model} cannot be loaded") from error
            self._loaded[model] = source
