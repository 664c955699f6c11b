"""The parts of the admin API."""

from __future__ import annotations

from typing import Final

from serve_apps.api.admin import audit, keys, organisations, pools, quotas, teams

ADMIN: Final = (organisations, teams, keys, quotas, audit, pools)
"""Each has a `router(gateway)`."""
