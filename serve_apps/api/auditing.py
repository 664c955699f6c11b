"""What the audit log is told of callers: who does what to which object."""

from __future__ import annotations

from typing import Any

import msgspec

from serve_apps.audit.model import Deed
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.deps import Gateway
from serve_apps.gateway.http import Exchange

MAX_OBJECT_CHARS = 256


def deed_of(
    gateway: Gateway,
    exchange: Exchange,
    caller: Caller,
    action: str,
    thing: str,
    *,
    tenant: str | None = None,
    before: Any = None,
    after: Any = None,
) -> Deed:
    """A deed of the caller at `thing`, as `key/9f86…`, of its own organisation unless `tenant` says another.

    `before` and `after` are what it is and becomes, None where there is nothing; the log has digests of them.
    """
    log = caller.tenant if tenant is None else tenant
    audit = gateway.audit
    return Deed(
        tenant=log,
        actor=caller.id,
        actor_tenant=caller.tenant,
        actor_role=caller.role,
        action=action,
        object=thing[:MAX_OBJECT_CHARS],
        request_id=exchange.id,
        before=None if before is None else audit.digest(log, before),
        after=None if after is None else audit.digest(log, after),
        changed=_changed(before, after),
    )


def _changed(before: Any, after: Any) -> list[str]:
    """Names of the fields that differ between two states of one thing."""
    if before is None or after is None:
        return []
    one, other = msgspec.to_builtins(before), msgspec.to_builtins(after)
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
