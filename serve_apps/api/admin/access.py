"""Who asks the admin API, and whether it may: the first steps of every route there.

another organisation's    404, the same as for what does not exist
not of its role           403, which the audit log of the caller's organisation tells of
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, NoReturn, TypeVar

from fastapi import Request as HTTPRequest

from runtime.store.naming import check_name
from serve_apps.api.auditing import deed_of
from serve_apps.api.common import caller_of, exchange_of
from serve_apps.audit.model import PLATFORM, Deed
from serve_apps.gateway.administration import Deed as Right
from serve_apps.gateway.administration import refusal, sees
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.directory import Organisation, Team
from serve_apps.gateway.errors import Conflict, Forbidden, NotFound
from serve_apps.gateway.http import Exchange
from serve_apps.gateway.keys import KeyRecord

Administered = Organisation | Team | KeyRecord
Thing = TypeVar("Thing", bound=Administered)


class Administrator(NamedTuple):
    """A caller at the admin API."""

    gateway: Gateway
    exchange: Exchange
    caller: Caller

    async def body(self) -> bytes:
        """Raises `UnsupportedMediaType`, `BodyTooLarge`, `ClientGone`."""
        return await self.exchange.body(self.gateway.settings.max_body_bytes)

    def organisation(self, given: str | None) -> str:
        """The organisation that is meant: its own where none is named. Raises `NotFound`, `InvalidName`."""
        tenant = self.caller.tenant if given is None else check_name("organisation", given)
        if not sees(self.caller, tenant):
            raise unknown("organisation", tenant)
        return tenant

    async def may(self, right: Right, thing: Administered, action: str) -> None:
        """Raises `Forbidden`, once that is written down."""
        reason = refusal(self.caller, right, thing)
        if reason is not None:
            await self.refuse(reason, action, name_of(thing))

    async def refuse(self, reason: str, action: str, thing: str) -> NoReturn:
        """Raises `Forbidden`."""
        await self.gateway.audit.refused(self.deed(action, thing))
        raise Forbidden(reason, code="role_not_allowed")

    async def may_audit(self, tenant: str, action: str) -> None:
        """Whether the caller may see the audit log of an organisation that it sees. Raises `Forbidden`."""
        if self.caller.role not in ("admin", "owner"):
            reason = "Only the roles 'admin' and 'owner' may see the audit log."
            await self.refuse(reason, action, f"audit/{tenant}")

    def deed(
        self, action: str, thing: str, *, tenant: str | None = None, before: Any = None, after: Any = None
    ) -> Deed:
        gateway, exchange, caller = self
        return deed_of(gateway, exchange, caller, action, thing, tenant=tenant, before=before, after=after)

    def change_of(self, action: str, before: Thing | None, after: Thing | None) -> Deed:
        """The deed of something that becomes another, is made or goes."""
        thing = after if after is not None else before
        assert thing is not None
        return self.deed(action, name_of(thing), tenant=thing.tenant, before=before, after=after)


async def administrator(gateway: Gateway, request: HTTPRequest) -> Administrator:
    """Raises `Unauthorized`, `StoreUnavailable`."""
    return Administrator(gateway, exchange_of(request), await caller_of(gateway, request))


def name_of(thing: Administered) -> str:
    """As the audit log calls it."""
    match thing:
        case Organisation():
            return f"organisation/{thing.tenant}"
        case Team():
            return f"team/{thing.team}"
        case KeyRecord():
            return f"key/{thing.key_id}"


Kind = Literal["organisation", "team", "key"]
_NOT_FOUND: Final[Mapping[Kind, str]] = {
    "organisation": "organisation_not_found",
    "team": "team_not_found",
    "key": "key_not_found",
}


def unknown(kind: Kind, name: str) -> NotFound:
    """The same whether there is none or the caller may not know of it."""
    return NotFound(f"There is no {kind} {name[:100]!r}.", code=_NOT_FOUND[kind])


def becoming(seen: Thing, becomes: Thing) -> Callable[[Thing], Thing]:
    """A change to what was seen, and to nothing that somebody else has made of it since: its rights were
    looked at, and its digest is in the log. It raises `Conflict`."""

    def change(current: Thing) -> Thing:
        if current != seen:
            raise Conflict(
                "Somebody else changed it in the same moment: look at it again.", code="changed_meanwhile"
            )
        return becomes

    return change


def log_of(admin: Administrator, given: str | None) -> str:
    """The organisation whose log is meant, or for an administrator `PLATFORM`. Raises `NotFound`."""
    if given == PLATFORM and admin.caller.role == "admin":
        return PLATFORM
    return admin.organisation(given)
