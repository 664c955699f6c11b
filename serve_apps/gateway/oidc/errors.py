"""Why a token does not count.

    TokenRejected
    ├── InvalidToken          forged, malformed, not for us: deliberately the same to its bearer
    ├── ExpiredToken          a good one, past its end
    └── NotMapped             a good one, of somebody whom the deploy config makes nobody here
    ProviderUnavailable       its provider does not tell its keys

None holds the token or what it claims.
"""

from __future__ import annotations


class TokenRejected(Exception):
    """Base of what is the bearer's affair."""


class InvalidToken(TokenRejected):
    """Nobody vouches for it, or not to us."""


class ExpiredToken(TokenRejected):
    """Its time is over."""


class NotMapped(TokenRejected):
    """`field` is what its claims do not give: organisation, team, role or models."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class ProviderUnavailable(Exception):
    """Its keys cannot be fetched, and none are known."""
