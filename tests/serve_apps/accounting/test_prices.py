from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.config import AnthropicSpec, FakeSpec, OpenAISpec, TimePrice, TokenPrice
from cluster.messages import Usage
from serve_apps.accounting.prices import configured, highest, nanodollars, price_of, prices_of
from serve_apps.gateway.demand import FREE, Price

OPENAI = "https://api.openai.com/v1"


def remote(**fields: Any) -> OpenAISpec:
    return OpenAISpec(engine="openai", **{"name": "gpt-4o", "base_url": OPENAI, **fields})


def test_an_hour_is_shared_out_over_its_seconds() -> None:
    price = configured(TimePrice(per_hour=Decimal("2.50")))
    assert price == Price(second=694_444_444, by="config")
    assert nanodollars(price, Usage(5, 5, engine_ns=3600 * 10**9)) == 2_499_999_998


def test_cached_tokens_are_not_counted_twice() -> None:
    price = configured(
        TokenPrice(
            input_per_million=Decimal(2),
            cached_input_per_million=Decimal("0.5"),
            output_per_million=Decimal(8),
        )
    )
    assert nanodollars(price, Usage(100, 10, cached_tokens=60)) == 40 * 2_000 + 60 * 500 + 10 * 8_000


def test_cached_tokens_cost_as_others_where_nothing_else_is_said() -> None:
    price = configured(TokenPrice(input_per_million=Decimal(2)))
    assert (price.input, price.cached_input, price.output) == (2_000_000, 2_000_000, 0)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**13), st.integers(0, 10**9))
def test_what_a_model_did_is_rounded_once_and_half_up(tokens: int, out: int, ns: int, second: int) -> None:
    price = Price(input=1_499, output=7, second=second)
    exact = (Decimal(tokens * 1_499 + out * 7) + Decimal(ns) * second / 10**9) / 1000
    assert abs(nanodollars(price, Usage(tokens, out, engine_ns=ns)) - exact) <= Decimal("0.5")


def test_half_a_nanodollar_is_one() -> None:
    assert [nanodollars(Price(input=499), Usage(1)), nanodollars(Price(input=500), Usage(1))] == [0, 1]


def test_what_providers_ask_is_known_without_a_network() -> None:
    price = price_of(remote(model="gpt-4o-mini", name="small"))
    assert (price.input, price.cached_input, price.output) == (150_000, 75_000, 600_000)
    assert price.by.startswith("genai-prices ")


def test_what_anthropic_asks_is_known_too() -> None:
    url = "https://api.anthropic.com/v1"
    spec = AnthropicSpec(engine="anthropic", name="claude", model="claude-sonnet-4-5", base_url=url)
    price = price_of(spec)
    assert (price.input, price.cached_input, price.output) == (3_000_000, 300_000, 15_000_000)


def test_what_the_config_says_goes_before_what_the_provider_asks() -> None:
    price = price_of(remote(price=TokenPrice(input_per_million=Decimal(1))))
    assert (price.input, price.by) == (1_000_000, "config")


@pytest.mark.parametrize("spec", [remote(name="no-such"), remote(base_url="http://127.0.0.1:9/v1")])
def test_a_model_that_nobody_knows_is_free(spec: OpenAISpec) -> None:
    assert price_of(spec) == FREE


def test_every_model_has_a_price() -> None:
    local = FakeSpec(engine="fake", name="local", price=TimePrice(per_hour=Decimal(1)))
    assert prices_of([local, FakeSpec(engine="fake", name="free")]) == {
        "local": Price(second=277_777_778, by="config"),
        "free": FREE,
    }


@pytest.mark.parametrize(
    "price", [{}, {"per_hour": -1}, {"per_hour": 1, "input_per_million": 1}, {"output_per_million": 1}]
)
def test_a_price_of_no_kind_is_refused(price: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="price"):
        FakeSpec.model_validate({"engine": "fake", "name": "m", "price": price})


def test_a_run_of_several_models_costs_at_most_as_the_dearest_tokens_and_all_their_time() -> None:
    prices = {"a": Price(input=5, output=3, second=7), "b": Price(output=9, second=1)}
    assert highest(prices, ["a", "b", "free"]) == Price(9, 9, 9, 8)
    assert highest(prices, []) == FREE
