"""How a refusal reads."""

from __future__ import annotations

import pickle

import pytest

from serve_apps.gateway.refusals import LimitState, QuotaExceeded

TOKENS = LimitState("key", "k1", None, "tokens_per_minute", 100, 20, 30.0)
MONEY = LimitState("organisation", "acme", "m", "money_per_month", 2_500_000_000, 1_230_000_000, 30.0)


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (
            QuotaExceeded(TOKENS, 50, 12.54, "max_tokens up to 5"),
            "Rate limit reached: this API key has 100 tokens a minute, of which 20 are left and 50 are "
            "needed: max_tokens up to 5 would fit. Try again in 12.5 s.",
        ),
        (
            QuotaExceeded(TOKENS, 500, None),
            "The request may need 500, and this API key has 100 tokens a minute: it can never be admitted.",
        ),
        (
            QuotaExceeded(MONEY, 2_000_000_000, 9.0),
            "Rate limit reached: the organisation of this API key has $2.5 a month for 'm', of which $1.23 "
            "are left and $2 are needed. Try again in 9.0 s.",
        ),
    ],
)
def test_it_explains_itself_and_survives_pickling(refusal: QuotaExceeded, text: str) -> None:
    copy = pickle.loads(pickle.dumps(refusal))
    assert str(copy) == str(refusal) == text
    assert (copy.exceeded, copy.requested, copy.retry_after_s) == (
        refusal.exceeded,
        refusal.requested,
        refusal.retry_after_s,
    )
