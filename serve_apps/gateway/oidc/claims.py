"""Whom a token means: its claims, once its signature is known to be good. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from runtime.store.errors import InvalidName
from runtime.store.naming import check_name
from serve_apps.gateway.callers import Caller, Role
from serve_apps.gateway.oidc.config import (
    Claim,
    MappedClaim,
    ModelsClaim,
    NamedClaim,
    ProviderSpec,
    RoleClaim,
)
from serve_apps.gateway.oidc.errors import ExpiredToken, InvalidToken, NotMapped

MAX_SUBJECT_LENGTH: Final = 255
"""As OpenID Connect Core 1.0, section 2, has it."""
MAX_VALUES: Final = 1000
"""Of one claim that are looked at."""

Claims = Mapping[str, Any]


class Vouched(msgspec.Struct, frozen=True):
    """Somebody whom a provider vouches for."""

    caller: Caller
    """Without the allowances of organisation and team."""
    until: float
    """Unix seconds."""


def vouched(provider: ProviderSpec, claims: Claims, now: float) -> Vouched:
    """Raises `InvalidToken`, `ExpiredToken`, `NotMapped`."""
    until = _checked(provider, claims, now)
    person = _person(claims)
    caller = Caller(
        tenant=_name(provider.organisation, claims, "organisation"),
        id=person,
        team=_name(provider.team, claims, "team"),
        role=_role(provider.role, claims),
        models=_models(provider.models, claims),
        endpoints=provider.endpoints,
    )
    return Vouched(caller, until)


def _checked(provider: ProviderSpec, claims: Claims, now: float) -> float:
    """Until when the token counts (RFC 7519, section 4.1)."""
    if claims.get("iss") != provider.issuer:
        raise InvalidToken
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(each, str) and each in provider.audiences for each in named[:MAX_VALUES]):
        raise InvalidToken
    for start in ("nbf", "iat"):
        if start in claims and _seconds(claims[start]) > now + provider.leeway:
            raise InvalidToken
    until = _seconds(claims.get("exp")) + provider.leeway
    if now >= until:
        raise ExpiredToken
    return until


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise InvalidToken
    return float(value)


def _person(claims: Claims) -> str:
    """An id that tells neither who it is nor where from, and is the same every time."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH:
        raise InvalidToken
    text = f"{claims['iss']}\0{subject}".encode("utf-8", "surrogatepass")
    return f"user-{hashlib.blake2b(text, digest_size=16, person=b'cgh-user').hexdigest()}"


def _name(spec: str | MappedClaim | NamedClaim, claims: Claims, field: str) -> str:
    if isinstance(spec, str):
        return spec
    values = _values(spec, claims)
    if isinstance(spec, MappedClaim):
        found = next((name for value, name in spec.values.items() if value in values), spec.default)
    else:
        found = values[0] if len(values) == 1 else spec.default if not values else None
    if found is None:
        raise NotMapped(field)
    try:
        return check_name(field, found)
    except InvalidName:
        raise NotMapped(field) from None


def _role(spec: Role | RoleClaim, claims: Claims) -> Role:
    if not isinstance(spec, RoleClaim):
        return spec
    values = _values(spec, claims)
    found = next((role for value, role in spec.values.items() if value in values), spec.default)
    if found is None:
        raise NotMapped("role")
    return found


def _models(spec: list[str] | ModelsClaim | None, claims: Claims) -> list[str] | None:
    if not isinstance(spec, ModelsClaim):
        return spec
    values = _values(spec, claims)
    known = [models for value, models in spec.values.items() if value in values]
    if not known and spec.default is None:
        raise NotMapped("models")
    return list(dict.fromkeys(name for models in known for name in models)) if known else spec.default


def _values(spec: Claim, claims: Claims) -> list[str]:
    """The texts that a claim holds, be it one or a list of them."""
    found: Any = claims
    for name in [spec.claim] if isinstance(spec.claim, str) else spec.claim:
        found = found.get(name) if isinstance(found, dict) else None
    held = found if isinstance(found, list) else [found]
    return [value for value in held[:MAX_VALUES] if isinstance(value, str)]
