"""Limits as the admin API says them: money in dollars, in decimal, and exact to the nanodollar."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.limits import NANODOLLARS, Allowance, Limits

MAX_COUNT: Final = 10**12
MAX_DOLLARS: Final = 999_999
"""A month. The store counts nanodollars in doubles, which hold whole numbers up to 2**53."""
MAX_MODELS: Final = 100
"""That may have limits of their own in one allowance, or stand in one list."""
DECIMALS: Final = 9

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Dollars = Annotated[
    Decimal,
    Meta(
        extra_json_schema={"type": ["string", "number"]},
        description=f"US dollars, with at most {DECIMALS} decimals.",
    ),
]
ModelName = Annotated[str, Meta(min_length=1, max_length=200)]


class LimitsObject(Struct, frozen=True):
    """Most that may be spent. Null is no limit."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    tokens_per_day: int | None
    """From midnight to midnight, UTC."""
    dollars_per_month: str | None
    """From the first to the last day of a month, UTC."""


class LimitsChange(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits that become others. Null takes a limit away; one that is left out stays as it is."""

    requests_per_minute: Count | UnsetType | None = UNSET
    tokens_per_minute: Count | UnsetType | None = UNSET
    concurrent_requests: Count | UnsetType | None = UNSET
    tokens_per_day: Count | UnsetType | None = UNSET
    dollars_per_month: Dollars | UnsetType | None = UNSET


class AllowanceChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What part of a body says of limits."""

    limits: LimitsChange | UnsetType = UNSET
    """Of everything together."""
    limits_by_model: (
        Annotated[dict[ModelName, LimitsChange | None], Meta(max_length=MAX_MODELS)] | UnsetType
    ) = UNSET
    """Of single models and graphs ("graph/NAME"), beside those of everything. Null takes them away."""


def limits_object(limits: Limits) -> LimitsObject:
    money = limits.money_per_month
    return LimitsObject(
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.concurrent_requests,
        limits.tokens_per_day,
        None if money is None else dollars_of(money),
    )


def limits_by_model(allowance: Allowance) -> dict[str, LimitsObject]:
    return {model: limits_object(limits) for model, limits in allowance.models.items()}


def changed_allowance(allowance: Allowance, change: AllowanceChange) -> Allowance:
    """The allowance with the change made. Raises `BadRequest`."""
    limits = allowance.limits
    if change.limits is not UNSET:
        limits = _changed(limits, change.limits, "limits")
    return Allowance(limits, _changed_models(allowance.models, change.limits_by_model))


def _changed_models(
    models: Mapping[str, Limits], change: Mapping[str, LimitsChange | None] | UnsetType
) -> Mapping[str, Limits]:
    if change is UNSET:
        return models
    becoming = dict(models)
    for model, limits in change.items():
        if limits is None:
            becoming.pop(model, None)
        else:
            before = becoming.get(model, Limits())
            becoming[model] = _changed(before, limits, f"limits_by_model.{model[:100]}")
    if len(becoming) > MAX_MODELS:
        raise BadRequest(
            f"At most {MAX_MODELS} models may have limits of their own.",
            param="limits_by_model",
            code="invalid_value",
        )
    return becoming


def _changed(limits: Limits, change: LimitsChange, where: str) -> Limits:
    given = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}
    if "dollars_per_month" in given:
        dollars = given.pop("dollars_per_month")
        param = f"{where}.dollars_per_month"
        given["money_per_month"] = None if dollars is None else nanodollars_of(dollars, param)
    return msgspec.structs.replace(limits, **given)


def nanodollars_of(dollars: Decimal, param: str) -> int:
    """Raises `BadRequest` for what is no amount of money, or has more decimals than there are."""
    if not dollars.is_finite() or not 0 <= dollars <= MAX_DOLLARS:
        raise BadRequest(f"{param!r} must be 0 to {MAX_DOLLARS}.", param=param, code="invalid_value")
    exponent = dollars.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -DECIMALS:
        raise BadRequest(
            f"{param!r} may have at most {DECIMALS} decimals.", param=param, code="invalid_value"
        )
    return int(dollars.scaleb(DECIMALS))


def dollars_of(nanodollars: int) -> str:
    """As `12.5`: exact, and without more digits than it takes."""
    sign, amount = ("-" if nanodollars < 0 else ""), abs(nanodollars)
    whole, rest = divmod(amount, NANODOLLARS)
    decimals = f"{rest:0{DECIMALS}d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
