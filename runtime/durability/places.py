"""Where the journal of a run is in the store.

cgh:{acme}:journal:5f…            request, digest of the plan, state, token, number of the last event …
cgh:{acme}:journal:5f…:done       search[3].each: its checkpoint
cgh:{acme}:journal:5f…:values     digest: a large output
cgh:{acme}:journal:5f…:events     17-0: events up to number 17
cgh:{acme}:plan:9c…               a plan, for all runs that began with it
cgh:{acme}:journals               5f… by when it began, while it goes on
cgh:{acme}:journals:ended         5f… by when it ended
cgh:leases                        "acme 5f…" by when its lease ends; a hint only
"""

from __future__ import annotations

from typing import NamedTuple

from runtime.store.naming import check_name, tenant_key

LEASES = "cgh:leases"
PARTS = ("done", "values", "events")
"""What follows the key of a run in those of the rest of its journal."""


class Places(NamedTuple):
    """The keys of a run, all in the slot of its tenant, in the order in which scripts take them."""

    run: str
    done: str
    values: str
    events: str
    plan: str
    live: str
    ended: str


def places(tenant: str, run_id: str, plan: str = "none") -> Places:
    """`plan` is its digest, where it matters. Raises `InvalidName`."""
    check_name("run_id", run_id)
    return Places(
        run=tenant_key(tenant, "journal", run_id),
        done=tenant_key(tenant, "journal", run_id, "done"),
        values=tenant_key(tenant, "journal", run_id, "values"),
        events=tenant_key(tenant, "journal", run_id, "events"),
        plan=tenant_key(tenant, "plan", plan),
        live=tenant_key(tenant, "journals"),
        ended=tenant_key(tenant, "journals", "ended"),
    )


def member(tenant: str, run_id: str) -> str:
    """Of the sorted set of leases: neither name has a blank."""
    return f"{tenant} {run_id}"
