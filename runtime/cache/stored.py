"""Results in the store, where all runners find them: within bounds for each tenant."""

from __future__ import annotations

from runtime.sealing import Sealing
from runtime.store.client import Script, Store
from runtime.store.naming import tenant_key

MAX_RESULTS = 10_000
"""Of one tenant."""
MAX_RESULT_BYTES = 256 * 1024
"""Packed size of one result."""
MAX_TENANT_BYTES = 64 * 2**20
"""Of all results of one tenant."""

_PUT = Script("cache_put")


class StoredResults:
    """Packed results by tenant and digest."""

    def __init__(
        self,
        store: Store,
        sealing: Sealing | None = None,
        *,
        max_results: int = MAX_RESULTS,
        max_bytes: int = MAX_TENANT_BYTES,
    ) -> None:
        """`sealing` is what runs of some tenants are sealed with: their results are, too."""
        self._store = store
        self._sealing = sealing or Sealing()
        self._max_results = max_results
        self._max_bytes = max_bytes

    async def get(self, tenant: str, digest: str) -> bytes | None:
        """In one round trip. Raises `InvalidName`, `StoreUnavailable`, `CommandFailed`, `SealBroken`."""
        seal = self._sealing.of(tenant)
        key = tenant_key(tenant, "cache", seal.digest(digest.encode()).hex())
        kept: bytes | None = await self._store.execute("GET", key)
        return None if kept is None else seal.open(kept, key)

    async def put(self, tenant: str, digest: str, packed: bytes, keep_s: float) -> None:
        """Keeps it for so long, in place of what was there. Raises as `get` does."""
        seal = self._sealing.of(tenant)
        name = seal.digest(digest.encode()).hex()
        key = tenant_key(tenant, "cache", name)
        sizes, due = tenant_key(tenant, "cache-sizes"), tenant_key(tenant, "cache-due")
        keep_ms = max(1, int(keep_s * 1000))
        limits = (self._max_results, self._max_bytes)
        kept = seal.close(packed, key)
        await self._store.run(_PUT, [key, sizes, due], [name, kept, keep_ms, *limits, key.removesuffix(name)])
