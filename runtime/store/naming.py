"""How keys are named: the one place where tenants are kept apart.

    cgh:{acme}:quota:open          cgh:{acme}:context:c-1:turns

The braces are Redis's hash tag: all keys of a tenant live in one slot, so a script may touch several of
them. No part may hold a brace or a colon, so no tenant can spell another one's key.
"""

from __future__ import annotations

import re
from functools import lru_cache

from runtime.store.errors import InvalidName

MAX_NAME_LENGTH = 128
"""Characters in a tenant or an id."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}")


def check_name(kind: str, name: str) -> str:
    """`name` itself. Raises `InvalidName`, which says what a `kind` ("tenant", "contextId") may be."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f"a {kind} is 1 to {MAX_NAME_LENGTH} ASCII letters, digits, '.', '_' or '-', "
            f"and starts with a letter or digit; got {name[:40]!r}"
        )
    return name


@lru_cache(maxsize=8192)
def tenant_key(tenant: str, *parts: str) -> str:
    """The key of `parts` within `tenant`. Raises `InvalidName`."""
    check_name("tenant", tenant)
    for part in parts:
        check_name("key part", part)
    return f"cgh:{{{tenant}}}:" + ":".join(parts)
