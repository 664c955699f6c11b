"""Results in the store, where all runners find them: within bounds for each tenant."""

from __future__ import annotations

from typing import NamedTuple

from runtime.sealing import Seal, Sealing
from runtime.store.client import Script, Store
from runtime.store.naming import tenant_key

MAX_RESULTS = 10_000
"""Of one tenant."""
MAX_RESULT_BYTES = 256 * 1024
"""Packed size of one result."""
MAX_TENANT_BYTES = 64 * 2**20
"""Of all results of one tenant."""

_LOOK, _PUT, _SWAP = Script("cache_look"), Script("cache_put"), Script("claim_swap")


class Looked(NamedTuple):
    """What is in the store for a question."""

    packed: bytes | None
    held: str
    """The word by which somebody makes it; `""` where nobody needs to."""


class _Place(NamedTuple):
    seal: Seal
    name: str
    """Of the question: of a sealed tenant it tells nobody what was asked."""
    key: str
    claim: str
    """The key of who makes it. What is kept there is a word that tells of a claim and its urgency alone."""


class StoredResults:
    """Packed results by tenant and digest, and who makes one.

    All of it raises `InvalidName`, `StoreUnavailable`, `CommandFailed`, and what reads results `SealBroken`.
    """

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
        """In one round trip."""
        at = self._place(tenant, digest)
        kept: bytes | None = await self._store.execute("GET", at.key)
        return None if kept is None else at.seal.open(kept, at.key)

    async def look(
        self, tenant: str, digest: str, word: str, lease_s: float, *, anyway: bool = False
    ) -> Looked:
        """As `get`. Where nothing is kept, or `anyway`, whoever makes it is told too: `word` does from now
        on, for so long, where nobody did."""
        at = self._place(tenant, digest)
        kept, held = await self._store.run(
            _LOOK, [at.key, at.claim], [word, _milliseconds(lease_s), int(anyway)]
        )
        return Looked(None if kept is None else at.seal.open(kept, at.key), held.decode(errors="replace"))

    async def swap(self, tenant: str, digest: str, word: str, becomes: str, lease_s: float) -> bool:
        """Has the claim of `word` hold for so long again, as what it becomes; `""` ends it. Whether it was
        still there."""
        at = self._place(tenant, digest)
        return bool(await self._store.run(_SWAP, [at.claim], [word, becomes, _milliseconds(lease_s)]))

    async def put(self, tenant: str, digest: str, packed: bytes, keep_s: float, word: str = "") -> bool:
        """Keeps it for so long, in place of what was there; whether it did.

        The claim of `word` ends with it. Where that has become another's, what is kept by then stays.
        """
        at = self._place(tenant, digest)
        sizes, due = tenant_key(tenant, "cache-sizes"), tenant_key(tenant, "cache-due")
        limits = (self._max_results, self._max_bytes)
        kept = at.seal.close(packed, at.key)
        return bool(
            await self._store.run(
                _PUT,
                [at.key, sizes, due, at.claim],
                [at.name, kept, _milliseconds(keep_s), *limits, at.key.removesuffix(at.name), word],
            )
        )

    def _place(self, tenant: str, digest: str) -> _Place:
        seal = self._sealing.of(tenant)
        name = seal.digest(digest.encode()).hex()
        return _Place(seal, name, tenant_key(tenant, "cache", name), tenant_key(tenant, "cache-claim", name))


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
