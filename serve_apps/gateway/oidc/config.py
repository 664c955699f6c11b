"""What the deploy config says of identity providers, under `auth.oidc`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cluster.spec import Spec
from graphs.durations import parse_duration
from serve_apps.gateway.callers import DEFAULT_TEAM, Role
from serve_apps.gateway.rights import wrong_endpoint

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"
]
"""Those whose keys to verify with are public: whoever has them can sign nothing."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Text = Annotated[str, Field(min_length=1, max_length=512)]
Seconds = Annotated[float, BeforeValidator(parse_duration)]
Value = TypeVar("Value")


class Claim(Spec):
    """A value that a token gives."""

    claim: Text | list[Text]
    """The claim's name, or the names on the way to one inside others, as `[realm_access, roles]`."""


class NamedClaim(Claim):
    """A claim that holds the name itself."""

    default: Name | None = None
    """What counts where the token lacks it. None: its bearer is refused."""


class MappedClaim(Claim):
    """A claim, or a list of them, of which the first one known says what is meant."""

    values: dict[Text, Name] = Field(min_length=1)
    default: Name | None = None


class RoleClaim(Claim):
    """As `MappedClaim`, of roles."""

    values: dict[Text, Role] = Field(min_length=1)
    default: Role | None = None


class ModelsClaim(Claim):
    """A claim, or a list of them; the models of all that are known count together."""

    values: dict[Text, list[Text]] = Field(min_length=1)
    default: list[Text] | None = None


class ProviderSpec(Spec):
    """An OpenID Connect provider, and who its people are here."""

    issuer: Text
    """Exactly as its tokens say it in `iss`."""
    audience: Text | list[Text]
    """What its tokens must name in `aud`: this gateway."""
    algorithms: list[Algorithm] = Field(default=["RS256"], min_length=1)
    jwks_url: Text | None = None
    """Where its keys are. Default: where the discovery document of the issuer says."""
    allow_http: bool = False
    """Whether keys may be fetched without TLS. Whoever is on the way can then be anyone: for tests."""
    leeway: Seconds = Field(default=60.0, le=600)
    """How far its clock and ours may be apart."""
    keys_for: Seconds = Field(default=600.0, ge=1)
    """How long its keys are taken for the latest."""
    ask_every: Seconds = Field(default=30.0, ge=0.001)
    """At most this often it is asked for a key that it did not have."""
    organisation: Name | MappedClaim | NamedClaim
    team: Name | MappedClaim | NamedClaim = DEFAULT_TEAM
    role: Role | RoleClaim = "member"
    models: list[Text] | ModelsClaim | None = None
    """What they may call. None is all."""
    endpoints: list[Text] | None = None
    """Paths that they may call, as those of keys. None is all."""

    @property
    def audiences(self) -> frozenset[str]:
        return frozenset([self.audience] if isinstance(self.audience, str) else self.audience)

    @field_validator("endpoints")
    @classmethod
    def _are_patterns(cls, endpoints: list[str] | None) -> list[str] | None:
        wrong = next(filter(None, map(wrong_endpoint, endpoints or ())), None)
        if wrong is not None:
            raise ValueError(wrong)
        return endpoints

    @model_validator(mode="after")
    def _is_reached_safely(self) -> ProviderSpec:
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            if url is not None and (name == "jwks_url" or self.jwks_url is None):
                wrong = wrong_url(url, allow_http=self.allow_http)
                if wrong is not None:
                    raise ValueError(f"{name}: {wrong}")
        return self


class AuthSettings(Spec):
    """Who may call, beside those who have a key."""

    oidc: list[ProviderSpec] = Field(default_factory=list, max_length=16)

    @field_validator("oidc")
    @classmethod
    def _differ(cls, providers: list[ProviderSpec]) -> list[ProviderSpec]:
        issuers = [provider.issuer for provider in providers]
        repeated = {issuer for issuer in issuers if issuers.count(issuer) > 1}
        if repeated:
            raise ValueError(f"the issuer {min(repeated)!r} is there more than once")
        return providers


def wrong_url(url: str, *, allow_http: bool) -> str | None:
    """Why keys may not be fetched from there; None where they may."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "it is no URL"
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http"):
        return "it must be an https:// URL"
    if not named or "@" in parts.netloc:
        return "it must name a host, without user or password"
    return None
