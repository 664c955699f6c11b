"""Who may administer what: pure functions of the caller and the thing.

    role      organisations   teams          keys
    admin     all             all            all
    owner     reads its own   of its own     of its own, those of admins excepted
    member                                   its own, in its own team
    service

Who is no admin gives nobody more than it has itself: no higher role, no models, endpoints or functions that
it lacks; a member no higher limits and no later end either. A key is "its own" for whom it was made by, and
for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from serve_apps.gateway.callers import Caller, Role
from serve_apps.gateway.directory import Organisation, Team
from serve_apps.gateway.keys import KeyRecord
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.gateway.rights import covers

Deed = Literal["read", "create", "change", "rotate", "delete"]

RANKS: Final[dict[Role, int]] = {"service": 0, "member": 1, "owner": 2, "admin": 3}
"""Who outranks whom."""


def sees(caller: Caller, tenant: str) -> bool:
    """Whether the caller may know that an organisation exists: of others it is to hear `not found`."""
    return caller.role == "admin" or caller.tenant == tenant


def refusal(caller: Caller, deed: Deed, thing: Organisation | Team | KeyRecord) -> str | None:
    """Why the caller may not do this; None where it may.

    `thing` is as it would become for "create", and as it is for all else. A "change" also needs `exceeding`
    of what comes of it. Whoever rotates a key has its secret, and with it all that the key may.
    """
    if caller.role == "admin":
        return None
    if caller.role == "service":
        return "A key of the role 'service' may not administer anything."
    if thing.tenant != caller.tenant:
        return f"The role {caller.role!r} may administer its own organisation only."
    if caller.role == "owner":
        if isinstance(thing, Organisation) and deed != "read":
            return "Only the role 'admin' may create, change or delete organisations."
        if isinstance(thing, KeyRecord) and thing.role == "admin":
            return "Only the role 'admin' may administer keys of the role 'admin'."
        return _exceeding_with(caller, deed, thing) if isinstance(thing, KeyRecord) else None
    return _refusal_of_member(caller, deed, thing)


def exceeding(caller: Caller, key: KeyRecord, before: KeyRecord | None = None) -> str | None:
    """What a key may and the caller, who is to make it so, may not; None where there is nothing.

    What the key could `before` the change is not held against the caller.
    """
    if caller.role == "admin":
        return None
    already = frozenset(_excesses(caller, before)) if before is not None else frozenset()
    return next((excess for excess in _excesses(caller, key) if excess not in already), None)


def _refusal_of_member(caller: Caller, deed: Deed, thing: Organisation | Team | KeyRecord) -> str | None:
    if not isinstance(thing, KeyRecord):
        return "The role 'member' may administer its own keys only."
    if thing.team != caller.team:
        return f"The role 'member' may administer keys of its own team, {caller.team!r}, only."
    if caller.id not in (thing.key_id, thing.created_by):
        return "The role 'member' may administer its own keys only."
    if RANKS[thing.role] > RANKS[caller.role]:
        return f"The role 'member' may not administer keys of the role {thing.role!r}."
    return _exceeding_with(caller, deed, thing)


def _exceeding_with(caller: Caller, deed: Deed, key: KeyRecord) -> str | None:
    return exceeding(caller, key) if deed in ("create", "rotate") else None


def _excesses(caller: Caller, key: KeyRecord) -> Iterator[str]:
    if RANKS[key.role] > RANKS[caller.role]:
        yield f"role: {key.role!r} is more than your own, {caller.role!r}."
    if caller.models is not None:
        for name in ["all of them"] if key.models is None else key.models:
            if name not in caller.models:
                yield f"models: you may not give {name!r}, you may not use it yourself."
    if caller.endpoints is not None:
        for pattern in ["*"] if key.endpoints is None else key.endpoints:
            if not covers(caller.endpoints, pattern):
                yield f"endpoints: you may not give {pattern!r}, it is more than you may call yourself."
    if key.functions and not caller.functions:
        yield "functions: you may not give what you do not have."
    if caller.role == "member":
        yield from _excesses_of_allowance(caller.allowance, key.allowance)
        if caller.expires is not None and (key.expires is None or key.expires > caller.expires):
            yield "expires: it may not be later than the end of your own key."


def _excesses_of_allowance(own: Allowance, wanted: Allowance) -> Iterator[str]:
    yield from _excesses_of_limits("limits", own.limits, wanted.limits)
    for model, limits in own.models.items():
        yield from _excesses_of_limits(f"limits of {model}", limits, wanted.models.get(model, Limits()))


def _excesses_of_limits(where: str, own: Limits, wanted: Limits) -> Iterator[str]:
    for name in msgspec.structs.asdict(own):
        most, asked = getattr(own, name), getattr(wanted, name)
        if most is not None and (asked is None or asked > most):
            told = "unlimited" if asked is None else str(asked)
            yield f"{where}: {name} may be {most} at most, as your own, not {told}."
