"""The admin API, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from serve_apps.api.admin.audit import (
    HEAD_PARAMETERS,
    LOG_PARAMETERS,
    VERIFY_PARAMETERS,
    AuditHead,
    AuditPage,
    AuditVerdict,
    RestartBody,
)
from serve_apps.api.admin.keys import (
    LIST_PARAMETERS,
    KeyBody,
    KeyChange,
    KeyList,
    KeyObject,
    KeyWithSecret,
    RotateBody,
)
from serve_apps.api.admin.organisations import (
    OrganisationBody,
    OrganisationChange,
    OrganisationDeleted,
    OrganisationList,
    OrganisationObject,
)
from serve_apps.api.admin.pages import PAGE_PARAMETERS
from serve_apps.api.admin.pools import PoolsReport
from serve_apps.api.admin.quotas import QUOTA_PARAMETERS, QuotaChange, QuotaReport
from serve_apps.api.admin.teams import (
    TEAM_PARAMETERS,
    TEAMS_PARAMETERS,
    TeamBody,
    TeamChange,
    TeamDeleted,
    TeamList,
    TeamObject,
)
from serve_apps.api.described import READ_ERRORS, Described

_READ = READ_ERRORS
_SEND = (408, 413, 415, *READ_ERRORS)
_CHANGE = (*_SEND, 409)

_ORGANISATIONS = "/v1/admin/organisations"
_TEAMS = "/v1/admin/teams"
_KEYS = "/v1/admin/keys"
_QUOTAS = "/v1/admin/quotas"
_AUDIT = "/v1/admin/audit"
_POOLS = "/v1/admin/pools"

ADMIN_ROUTES: Final[dict[tuple[str, str], Described]] = {
    (_ORGANISATIONS, "get"): Described(
        "The organisations that this key may see", OrganisationList, errors=_READ, query=PAGE_PARAMETERS
    ),
    (_ORGANISATIONS, "post"): Described(
        "Make an organisation", OrganisationObject, OrganisationBody, errors=_CHANGE, status=201
    ),
    (f"{_ORGANISATIONS}/{{organisation}}", "get"): Described(
        "One organisation", OrganisationObject, errors=_READ
    ),
    (f"{_ORGANISATIONS}/{{organisation}}", "patch"): Described(
        "Change an organisation", OrganisationObject, OrganisationChange, errors=_CHANGE
    ),
    (f"{_ORGANISATIONS}/{{organisation}}", "delete"): Described(
        "Delete an organisation: its keys are refused", OrganisationDeleted, errors=(409, *_READ)
    ),
    (_TEAMS, "get"): Described(
        "The teams of an organisation", TeamList, errors=_READ, query=TEAMS_PARAMETERS
    ),
    (_TEAMS, "post"): Described("Make a team", TeamObject, TeamBody, errors=_CHANGE, status=201),
    (f"{_TEAMS}/{{team}}", "get"): Described("One team", TeamObject, errors=_READ, query=TEAM_PARAMETERS),
    (f"{_TEAMS}/{{team}}", "patch"): Described(
        "Change a team", TeamObject, TeamChange, errors=_CHANGE, query=TEAM_PARAMETERS
    ),
    (f"{_TEAMS}/{{team}}", "delete"): Described(
        "Delete a team: its keys are refused", TeamDeleted, errors=_READ, query=TEAM_PARAMETERS
    ),
    (_KEYS, "get"): Described("The keys that this key may see", KeyList, errors=_READ, query=LIST_PARAMETERS),
    (_KEYS, "post"): Described(
        "Make a key, which is shown this once", KeyWithSecret, KeyBody, errors=_CHANGE, status=201
    ),
    (f"{_KEYS}/{{key_id}}", "get"): Described("One key", KeyObject, errors=_READ),
    (f"{_KEYS}/{{key_id}}", "patch"): Described(
        "Change what a key may do and spend", KeyObject, KeyChange, errors=_CHANGE
    ),
    (f"{_KEYS}/{{key_id}}/rotate", "post"): Described(
        "Give a key a new secret, which is shown this once", KeyWithSecret, RotateBody, errors=_CHANGE
    ),
    (f"{_KEYS}/{{key_id}}/revoke", "post"): Described("Revoke a key", KeyObject, errors=_READ),
    (_QUOTAS, "get"): Described(
        "What is set, and what is left now", QuotaReport, errors=_READ, query=QUOTA_PARAMETERS
    ),
    (_QUOTAS, "patch"): Described(
        "Change limits", QuotaReport, QuotaChange, errors=_CHANGE, query=QUOTA_PARAMETERS
    ),
    (_POOLS, "get"): Described(
        "What every replica works on, and the queue in front of it", PoolsReport, errors=_READ
    ),
    (_AUDIT, "get"): Described(
        "Who changed what, the newest first", AuditPage, errors=_READ, query=LOG_PARAMETERS
    ),
    (f"{_AUDIT}/head", "get"): Described(
        "How far the audit log has come", AuditHead, errors=_READ, query=HEAD_PARAMETERS
    ),
    (f"{_AUDIT}/verify", "get"): Described(
        "Whether the audit log is as it was written", AuditVerdict, errors=_READ, query=VERIFY_PARAMETERS
    ),
    (f"{_AUDIT}/restart", "post"): Described(
        "Put a broken audit log aside and begin another", AuditHead, RestartBody, errors=_SEND
    ),
}
