"""What models cost: as the config says, or as providers ask for theirs.

Prices are whole picodollars (10^-12 US dollars) for a token and for a second of an engine, which no published
price is finer than, and what an hour costs is rounded to. What a model did for a call is summed in whole
numbers and rounded once, half up, to whole nanodollars; every sum above is a sum of those.

The list of providers' prices is that of the installed version of `genai-prices`: nothing is fetched, so two
gateways of one version agree. A price that depends on the length of the prompt is taken for the longest that
the pool admits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from importlib import metadata
from typing import Final

import genai_prices
import structlog

from cluster.config import ModelSpec, RemoteSpec, TimePrice, TokenPrice
from cluster.messages import Usage
from serve_apps.gateway.demand import FREE, Price

PICODOLLARS: Final = 10**12
"""In a US dollar."""
MILLION: Final = 10**6
NANOSECONDS: Final = 10**9
_HOUR_S: Final = 3600
_PROBE_TOKENS: Final = MILLION
_LIST: Final = f"genai-prices {metadata.version('genai-prices')}"

_log = structlog.get_logger(__name__)


def prices_of(specs: Iterable[ModelSpec]) -> dict[str, Price]:
    """The price of every model, by name. One that nobody names a price for is free; of a provider's, the log
    says so."""
    return {spec.name: price_of(spec) for spec in specs}


def price_of(spec: ModelSpec) -> Price:
    """What the config says, else what the provider asks."""
    if spec.price is not None:
        return configured(spec.price)
    return _asked(spec) if isinstance(spec, RemoteSpec) else FREE


def configured(price: TimePrice | TokenPrice) -> Price:
    """A price of the config in picodollars."""
    if isinstance(price, TimePrice):
        return Price(second=_whole(price.per_hour * PICODOLLARS / _HOUR_S), by="config")
    cached = price.cached_input_per_million
    return Price(
        input=_per_token(price.input_per_million),
        cached_input=_per_token(price.input_per_million if cached is None else cached),
        output=_per_token(price.output_per_million),
        by="config",
    )


def nanodollars(price: Price, usage: Usage) -> int:
    """What a model did, in nanodollars. Cached tokens cost their own price and not that of others too."""
    tokens = (
        (usage.prompt_tokens - usage.cached_tokens) * price.input
        + usage.cached_tokens * price.cached_input
        + usage.completion_tokens * price.output
    )
    parts = tokens * NANOSECONDS + usage.engine_ns * price.second
    unit = 1000 * NANOSECONDS
    return (2 * parts + unit) // (2 * unit)


def highest(prices: Mapping[str, Price], models: Iterable[str]) -> Price:
    """A price that a call of several models does not exceed: any of its tokens may be any model's, while
    every one of them works all the time."""
    known = [prices.get(model, FREE) for model in models]
    token = max((max(each.input, each.cached_input, each.output) for each in known), default=0)
    return Price(token, token, token, sum(each.second for each in known))


def _asked(spec: RemoteSpec) -> Price:
    """Of the provider at the URL. The list tells sums: those of a prompt as long as may be, and of a million
    tokens of output behind it."""
    model, prompt = spec.model or spec.name, spec.max_context
    try:
        plain = _sum(spec, genai_prices.Usage(input_tokens=prompt, output_tokens=_PROBE_TOKENS))
        cached = _sum(spec, genai_prices.Usage(input_tokens=prompt, cache_read_tokens=prompt))
    except LookupError:
        _log.warning("model_without_price", model=spec.name, provider_model=model, price_list=_LIST)
        return FREE
    return Price(
        input=_whole(plain.input_price * PICODOLLARS / prompt),
        cached_input=_whole(cached.input_price * PICODOLLARS / prompt),
        output=_per_token(plain.output_price),
        by=_LIST,
    )


def _sum(spec: RemoteSpec, usage: genai_prices.Usage) -> genai_prices.types.PriceCalculation:
    return genai_prices.calc_price(usage, model_ref=spec.model or spec.name, provider_api_url=spec.base_url)


def _per_token(dollars_per_million: Decimal) -> int:
    return _whole(dollars_per_million * PICODOLLARS / MILLION)


def _whole(picodollars: Decimal) -> int:
    return int(picodollars.to_integral_value(ROUND_HALF_UP))
