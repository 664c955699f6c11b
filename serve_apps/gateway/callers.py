"""Who calls, whatever they showed to prove it, and what they may spend.

    organisation ── team ── caller          an API key, or a person whom an identity provider vouches for
         └──────────┴─────────┴── each may have limits, for everything and for single models

An organisation is a tenant: organisations never see each other's data. All limits on the way count at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from serve_apps.gateway.limits import UNLIMITED, Allowance

DEFAULT_TEAM = "default"

Role = Literal["admin", "owner", "member", "service"]
"""`admin` may administer every organisation, `owner` the own one; `member` is a person, who may have keys of
their own; `service` a program, which administers nothing."""

LevelKind = Literal["organisation", "team", "key"]


class Level(msgspec.Struct, frozen=True):
    """One of those whose limits a caller is held to."""

    kind: LevelKind
    id: str
    allowance: Allowance


class Caller(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whoever sent a request, authenticated."""

    tenant: str
    """The organisation."""
    id: str
    """Of the key, or `user-…` of a person. Unique in the organisation."""
    team: str = DEFAULT_TEAM
    role: Role = "service"
    models: list[str] | None = None
    """Models and graphs ("graph/<name>") that may be called. None is all."""
    endpoints: list[str] | None = None
    """Paths that may be called, `*` for anything in one. None is all that the role may."""
    functions: bool = False
    """Whether pipelines that come with calls may reach out of the graph as those deployed may: call
    functions, web servers and MCP servers, and use prompt files."""
    organisation_allowance: Allowance = UNLIMITED
    team_allowance: Allowance = UNLIMITED
    allowance: Allowance = UNLIMITED
    expires: float | None = None
    """When its key ends, as Unix seconds."""

    def levels(self) -> Iterator[Level]:
        """Whose limits count, the widest first."""
        yield Level("organisation", self.tenant, self.organisation_allowance)
        yield Level("team", self.team, self.team_allowance)
        yield Level("key", self.id, self.allowance)
