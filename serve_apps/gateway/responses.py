"""Responses that are kept, to be looked at again and to be continued.

    cgh:{acme}:response:resp_8c…   answer, items (the input as it was told), turns (what both said), previous
    cgh:{acme}:responses           "resp_8c… BYTES" by when each was last used; response-bytes: their sum

A response names the one that it continues, so a conversation is a chain, read in one round trip. Who
continues it keeps all of it alive. A tenant keeps what it used last, within bounds. Of a tenant whose runs
are sealed the answer, the items and the turns are sealed too.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from cluster.messages import Message
from runtime.sealing import NOTHING_SEALED, Sealing, opened
from runtime.store.client import Script, Store, Word
from runtime.store.naming import tenant_key
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.errors import BadRequest, NotFound
from serve_apps.gateway.rights import may_use

KEEP_S: Final = 7 * 24 * 3600.0
MAX_RESPONSES: Final = 10_000
"""Of one tenant."""
MAX_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Of all responses of a tenant."""
MAX_CHAIN: Final = 256
"""Responses in one conversation."""
MAX_CHAIN_BYTES: Final = 8 * 1024 * 1024
"""Of these together, as they are kept."""

_PUT = Script("response_put")
_CHAIN = Script("response_chain")
_DELETE = Script("response_delete")
_ID = re.compile(r"resp_[0-9a-f]{32}")

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Message]).decode


class KeptResponse(msgspec.Struct, frozen=True):
    """One call and its answer."""

    id: str
    model: str
    answer: bytes
    """As the client was told, JSON."""
    items: bytes
    """The input of the call, a JSON list of items with ids."""
    turns: list[Message]
    """The same input and what the model said to it, as the next call needs them."""
    previous: str | None = None
    """The response that it continues."""


class ResponseStore:
    """Keeps responses. One is forgotten `keep_s` seconds after its last use."""

    def __init__(
        self,
        store: Store,
        *,
        keep_s: float = KEEP_S,
        most: int = MAX_RESPONSES,
        most_bytes: int = MAX_KEPT_BYTES,
        longest: int = MAX_CHAIN,
        sealing: Sealing = NOTHING_SEALED,
    ) -> None:
        self._store = store
        self._keep_ms = int(keep_s * 1000)
        self._most = most
        self._most_bytes = most_bytes
        self._longest = longest
        self._sealing = sealing

    async def put(self, tenant: str, response: KeptResponse) -> None:
        """Raises `StoreUnavailable`."""
        key, prefix = _key(tenant, response.id), _prefix(tenant)
        seal = self._sealing.of(tenant)
        fields: dict[str, bytes] = {
            "answer": response.answer,
            "items": response.items,
            "turns": _pack(response.turns),
        }
        sealed = {name: seal.close(value, key, name) for name, value in fields.items()}
        size = sum(map(len, sealed.values()))
        args: list[Word] = [response.id, size, self._keep_ms, self._most, self._most_bytes, prefix]
        args += ("model", response.model, "previous", response.previous or "")
        for name, value in sealed.items():
            args += (name, value)
        await self._store.run(_PUT, [key, *_tallies(tenant)], args)

    async def answer(self, caller: Caller, response_id: str) -> bytes:
        """What the client was told. Raises `NotFound`, `StoreUnavailable`."""
        return await self._read(caller, response_id, "answer")

    async def items(self, caller: Caller, response_id: str) -> bytes:
        """The input of the call. Raises `NotFound`, `StoreUnavailable`."""
        return await self._read(caller, response_id, "items")

    async def conversation(self, caller: Caller, response_id: str) -> list[Message]:
        """All turns up to the end of a response, in order.

        Raises `NotFound`, also where one in between is gone, `BadRequest` for a conversation that is longer
        than may be, `StoreUnavailable`.
        """
        if not _ID.fullmatch(response_id):
            raise _no_previous(response_id)
        tenant = caller.tenant
        args: list[Word] = [response_id, self._keep_ms, self._longest, MAX_CHAIN_BYTES, _prefix(tenant)]
        outcome, *links = await self._store.run(_CHAIN, _tallies(tenant), args)
        if outcome == 0:
            raise _no_previous(links[0].decode())
        if outcome < 0:
            raise BadRequest(
                f"A conversation has at most {self._longest} responses of {MAX_CHAIN_BYTES} bytes together. "
                "Send those of its turns that matter as 'input'.",
                param="previous_response_id",
                code="conversation_too_long",
            )
        seal, turns = self._sealing.of(tenant), list[Message]()
        for link, model, kept in reversed(links):
            name = link.decode()
            plain = opened(seal, kept, _key(tenant, name), "turns")
            if plain is None or not may_use(caller, model.decode()):
                raise _no_previous(name)
            turns += _unpack(plain)
        return turns

    async def delete(self, caller: Caller, response_id: str) -> None:
        """Raises `NotFound`, `StoreUnavailable`."""
        tenant = caller.tenant
        await self._read(caller, response_id, "answer")
        keys = [_key(tenant, response_id), *_tallies(tenant)]
        if not await self._store.run(_DELETE, keys, [response_id]):
            raise _none(response_id)

    async def _read(self, caller: Caller, response_id: str, field: str) -> bytes:
        if not _ID.fullmatch(response_id):
            raise _none(response_id)
        key = _key(caller.tenant, response_id)
        model, kept = await self._store.execute("HMGET", key, "model", field)
        if kept is None or not may_use(caller, model.decode()):
            raise _none(response_id)
        plain = opened(self._sealing.of(caller.tenant), kept, key, field)
        if plain is None:
            raise _none(response_id)
        return plain


def _key(tenant: str, response_id: str) -> str:
    return tenant_key(tenant, "response", response_id)


def _prefix(tenant: str) -> str:
    return tenant_key(tenant, "response", "x").removesuffix("x")


def _tallies(tenant: str) -> list[str]:
    return [tenant_key(tenant, "responses"), tenant_key(tenant, "response-bytes")]


def _none(response_id: str) -> NotFound:
    return NotFound(f"There is no response {response_id[:100]!r}.", code="response_not_found")


def _no_previous(response_id: str) -> NotFound:
    return NotFound(
        f"There is no response {response_id[:100]!r} to continue: "
        "it was not stored, was deleted, or is too old.",
        param="previous_response_id",
        code="previous_response_not_found",
    )
