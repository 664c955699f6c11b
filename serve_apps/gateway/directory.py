"""Organisations and their teams: what they are called, what they may spend, and whether they may at all.

    cgh:{acme}:organisation     hash, "record"            the organisation, which is the tenant acme
    cgh:{acme}:teams            hash, by the team's id    its teams
    cgh:organisations           sorted set                all organisations by id: for lists, never on a call

Changes compare and set, so that two administrators at once undo nothing of each other. What is deleted leaves
a mark and its id is not given again: its keys would otherwise go on, without the limits that it had.

Callers ask for the `Standing` of a team and its organisation together. It is kept for `cache_ttl_s` and read
again in time (`refreshing.py`). One that was never made has no limits.

    DirectoryError
    ├── AlreadyThere      the id is taken, or was
    ├── NotThere          nothing of that id, or deleted
    └── TooManyTeams
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

import msgspec

from runtime.store.client import Reply, Script, Store
from runtime.store.errors import CommandFailed
from runtime.store.naming import check_name, tenant_key
from serve_apps.gateway.limits import UNLIMITED, Allowance
from serve_apps.gateway.refreshing import Refreshing

MAX_TEAMS: Final = 10_000
"""Of one organisation, those deleted included."""
CACHE_SIZE: Final = 10_000
"""Standings kept by a gateway."""

_ORGANISATIONS: Final = "cgh:organisations"
_RECORD: Final = "record"
_PAGE: Final = 500
_SWAP = Script("field_swap")

Thing = TypeVar("Thing", bound="Organisation | Team")


class DirectoryError(Exception):
    """Base of what the directory refuses."""


class AlreadyThere(DirectoryError):
    """The id is taken, or belonged to something that was deleted."""


class NotThere(DirectoryError):
    """Nothing has this id."""


class TooManyTeams(DirectoryError):
    """The organisation has as many teams as it may."""


class Organisation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tenant."""

    tenant: str
    """Its id."""
    name: str
    """For people."""
    created: float
    """Unix seconds."""
    allowance: Allowance = UNLIMITED
    suspended: bool = False
    """Whether its callers are refused for now."""
    deleted: float | None = None
    """Unix seconds."""


class Team(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of an organisation. Its id is unique in it."""

    tenant: str
    team: str
    name: str
    created: float
    allowance: Allowance = UNLIMITED
    suspended: bool = False
    deleted: float | None = None
    """All as in `Organisation`."""


class Standing(msgspec.Struct, frozen=True):
    """What an organisation and one of its teams allow."""

    organisation: Allowance = UNLIMITED
    team: Allowance = UNLIMITED
    barred: str | None = None
    """Why their callers are refused: `organisation_suspended` and the like."""


UNBOUND: Final = Standing()


_decode_organisation = msgspec.msgpack.Decoder(Organisation).decode
_decode_team = msgspec.msgpack.Decoder(Team).decode
_Read = tuple[bytes | None, bytes | None]


class _Known(msgspec.Struct, frozen=True):
    """A standing, and the bytes that it was read from."""

    read: _Read
    standing: Standing


class Directory:
    """Organisations and teams in the store.

    `clock` gives Unix seconds; `monotonic` ages what is kept; `grace_s` is how long beyond `cache_ttl_s` a
    standing counts while the store is out.
    """

    def __init__(
        self,
        store: Store,
        *,
        cache_ttl_s: float = 1.5,
        grace_s: float = 0.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._standings = Refreshing(
            self._read_standing, ttl_s=cache_ttl_s, grace_s=grace_s, size=CACHE_SIZE, monotonic=monotonic
        )

    async def standing(self, tenant: str, team: str) -> Standing:
        """As it was at most `cache_ttl_s` ago. Raises `InvalidName`, `StoreUnavailable`."""
        return (await self._standings.get((tenant, team))).standing

    async def create_organisation(
        self, tenant: str, name: str, *, allowance: Allowance = UNLIMITED
    ) -> Organisation:
        """Raises `AlreadyThere`, `InvalidName`, `StoreUnavailable`."""
        organisation = Organisation(check_name("organisation", tenant), name, self._clock(), allowance)
        # The list first: an entry without a record is skipped, a record without an entry could not be found.
        await self._store.execute("ZADD", _ORGANISATIONS, 0, tenant)
        if not await self._swap(_organisation_key(tenant), _RECORD, None, organisation):
            raise AlreadyThere(f"there is an organisation {tenant!r} already, or was")
        self._standings.clear()
        return organisation

    async def organisation(self, tenant: str) -> Organisation | None:
        """As the store has it now; None where it was never made or is deleted.

        Raises `InvalidName`, `StoreUnavailable`.
        """
        raw = await self._store.execute(
            "HGET", _organisation_key(check_name("organisation", tenant)), _RECORD
        )
        return _present(_decode_organisation(raw)) if raw is not None else None

    async def organisations(self, after: str | None = None) -> AsyncIterator[Organisation]:
        """All of them by id, a page at a time; those behind the id `after`. Raises `StoreUnavailable`."""
        start = "-" if after is None else f"({after}"
        while page := await self._store.execute(
            "ZRANGE", _ORGANISATIONS, start, "+", "BYLEX", "LIMIT", 0, _PAGE
        ):
            tenants = [tenant.decode() for tenant in page]
            reads = [("HGET", _organisation_key(tenant), _RECORD) for tenant in tenants]
            for raw in map(_granted, await self._store.execute_many(reads)):
                organisation = _present(_decode_organisation(raw)) if raw is not None else None
                if organisation is not None:
                    yield organisation
            start = f"({tenants[-1]}"

    async def change_organisation(
        self, tenant: str, change: Callable[[Organisation], Organisation]
    ) -> tuple[Organisation, Organisation]:
        """Applies a change to it as it is: before and after. Raises `NotThere`, and what `change` raises.

        `change` may be called again where somebody else changes it meanwhile.
        """
        key = _organisation_key(check_name("organisation", tenant))
        return await self._change(key, _RECORD, _decode_organisation, change)

    async def delete_organisation(self, tenant: str) -> Organisation:
        """From now on all its callers are refused. What it was. Raises `NotThere`."""
        now = self._clock()
        before, _ = await self.change_organisation(
            tenant, lambda organisation: msgspec.structs.replace(organisation, deleted=now)
        )
        return before

    async def create_team(
        self, tenant: str, team: str, name: str, *, allowance: Allowance = UNLIMITED
    ) -> Team:
        """Raises `AlreadyThere`, `TooManyTeams`, `InvalidName`, `StoreUnavailable`."""
        made = Team(
            check_name("organisation", tenant), check_name("team", team), name, self._clock(), allowance
        )
        key = _teams_key(tenant)
        if await self._store.execute("HLEN", key) >= MAX_TEAMS:
            raise TooManyTeams(f"the organisation {tenant!r} has {MAX_TEAMS} teams, and may have no more")
        if not await self._swap(key, team, None, made):
            raise AlreadyThere(f"there is a team {team!r} already, or was")
        self._standings.clear()
        return made

    async def team(self, tenant: str, team: str) -> Team | None:
        """As `organisation`."""
        raw = await self._store.execute("HGET", _teams_key(tenant), check_name("team", team))
        return _present(_decode_team(raw)) if raw is not None else None

    async def teams(self, tenant: str) -> list[Team]:
        """Those of an organisation, by id. Raises `InvalidName`, `StoreUnavailable`."""
        raws = await self._store.execute("HVALS", _teams_key(check_name("organisation", tenant)))
        teams = [team for raw in raws if (team := _present(_decode_team(raw))) is not None]
        return sorted(teams, key=lambda team: team.team)

    async def change_team(self, tenant: str, team: str, change: Callable[[Team], Team]) -> tuple[Team, Team]:
        """As `change_organisation`."""
        key = _teams_key(check_name("organisation", tenant))
        return await self._change(key, check_name("team", team), _decode_team, change)

    async def delete_team(self, tenant: str, team: str) -> Team:
        """As `delete_organisation`."""
        now = self._clock()
        before, _ = await self.change_team(
            tenant, team, lambda each: msgspec.structs.replace(each, deleted=now)
        )
        return before

    async def _change(
        self, key: str, field: str, decode: Callable[[bytes], Thing], change: Callable[[Thing], Thing]
    ) -> tuple[Thing, Thing]:
        while True:
            held = await self._store.execute("HGET", key, field)
            before = _present(decode(held)) if held is not None else None
            if before is None:
                raise NotThere("there is no such organisation or team")
            after = change(before)
            if await self._swap(key, field, held, after):
                self._standings.clear()
                return before, after

    async def _swap(self, key: str, field: str, held: bytes | None, thing: Organisation | Team) -> bool:
        return bool(await self._store.run(_SWAP, [key], [field, held or b"", msgspec.msgpack.encode(thing)]))

    async def _read_standing(self, of: tuple[str, str], known: _Known | None) -> _Known:
        tenant, team = of
        reads = [("HGET", _organisation_key(tenant), _RECORD), ("HGET", _teams_key(tenant), team)]
        organisation, in_it = [_granted(reply) for reply in await self._store.execute_many(reads)]
        read: _Read = (organisation, in_it)
        # Mostly nothing has changed: then nothing is decoded.
        return known if known is not None and known.read == read else _Known(read, _standing(read))


def _standing(read: _Read) -> Standing:
    organisation = _decode_organisation(read[0]) if read[0] is not None else None
    team = _decode_team(read[1]) if read[1] is not None else None
    return Standing(
        organisation.allowance if organisation is not None else UNLIMITED,
        team.allowance if team is not None else UNLIMITED,
        _barred("organisation", organisation) or _barred("team", team),
    )


def _barred(kind: str, thing: Organisation | Team | None) -> str | None:
    if thing is None:
        return None
    if thing.deleted is not None:
        return f"{kind}_deleted"
    return f"{kind}_suspended" if thing.suspended else None


def _granted(reply: Reply | CommandFailed) -> Reply:
    if isinstance(reply, CommandFailed):
        raise reply
    return reply


def _present(thing: Thing) -> Thing | None:
    return thing if thing.deleted is None else None


def _organisation_key(tenant: str) -> str:
    return tenant_key(tenant, "organisation")


def _teams_key(tenant: str) -> str:
    return tenant_key(tenant, "teams")
