"""Money and limits as the admin API takes and tells them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.api.admin.limits import (
    MAX_DOLLARS,
    MAX_MODELS,
    AllowanceChange,
    changed_allowance,
    dollars_of,
    limits_by_model,
    limits_object,
    nanodollars_of,
)
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.limits import NANODOLLARS, UNLIMITED, Allowance, Limits
from serve_apps.translators.decoding import BodyDecoder

decode = BodyDecoder(AllowanceChange).decode


def change(body: dict[str, Any], allowance: Allowance = UNLIMITED) -> Allowance:
    return changed_allowance(allowance, decode(msgspec.json.encode(body)))


@given(st.integers(0, MAX_DOLLARS * NANODOLLARS))
def test_money_comes_back_to_the_nanodollar(nanodollars):
    told = dollars_of(nanodollars)
    assert nanodollars_of(Decimal(told), "x") == nanodollars
    as_text = msgspec.json.decode(b'"%b"' % told.encode(), type=Decimal)
    as_number = msgspec.json.decode(told.encode(), type=Decimal)
    assert as_text == as_number == Decimal(told)


@pytest.mark.parametrize(
    ("nanodollars", "told"),
    [(0, "0"), (1, "0.000000001"), (12_500_000_000, "12.5"), (10**9, "1"), (-1_100_000_000, "-1.1")],
)
def test_dollars_are_told_without_more_digits_than_it_takes(nanodollars: int, told: str) -> None:
    assert dollars_of(nanodollars) == told


@pytest.mark.parametrize("given", ["0.0000000001", "-1", "NaN", "Infinity", "1e30", "1e999999999", "1000000"])
def test_what_is_no_amount_of_money(given: str) -> None:
    with pytest.raises(BadRequest) as refused:
        change({"limits": {"dollars_per_month": given}})
    assert refused.value.param == "limits.dollars_per_month"


@pytest.mark.parametrize("given", [12.1, "12.1", "12.100000000", "1.21e1"])
def test_dollars_as_number_or_text(given: Any) -> None:
    assert change({"limits": {"dollars_per_month": given}}).limits.money_per_month == 12_100_000_000


def test_what_is_left_out_stays_and_null_takes_away() -> None:
    before = Allowance(
        Limits(5, 100, money_per_month=10**9), {"a": Limits(1, 2), "b": Limits(3), "c": Limits(4)}
    )
    after = change(
        {
            "limits": {"requests_per_minute": 6, "dollars_per_month": None},
            "limits_by_model": {
                "a": {"tokens_per_minute": None},
                "b": None,
                "graph/d": {"tokens_per_day": 9},
            },
        },
        before,
    )
    assert after == Allowance(
        Limits(6, 100), {"a": Limits(1), "c": Limits(4), "graph/d": Limits(tokens_per_day=9)}
    )
    assert change({}, before) == before
    assert limits_object(after.limits).requests_per_minute == 6
    assert limits_by_model(before)["a"].tokens_per_minute == 2
    assert limits_object(before.limits).dollars_per_month == "1"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"limits": {"request_per_minute": 5}}, "limits.request_per_minute"),
        ({"limits": {"requests_per_minute": -1}}, "limits.requests_per_minute"),
        ({"limits": {"requests_per_minute": 1.5}}, "limits.requests_per_minute"),
        ({"limits": {"requests_per_minute": 10**18}}, "limits.requests_per_minute"),
        ({"limits": {"dollars_per_month": "much"}}, "limits.dollars_per_month"),
        ({"limits_by_model": {"": {}}}, "limits_by_model"),
        ({"limits_by_model": {"a": {"dollars_per_month": -1}}}, "limits_by_model.a.dollars_per_month"),
    ],
)
def test_a_wrong_limit_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        change(body)
    assert str(refused.value.param).startswith(param)


def test_a_misspelt_limit_is_told_the_right_name() -> None:
    with pytest.raises(BadRequest, match="Did you mean 'requests_per_minute'"):
        change({"limits": {"request_per_minute": 5}})


def test_models_with_limits_of_their_own_are_bounded() -> None:
    full = Allowance(models={f"m{number}": Limits(1) for number in range(MAX_MODELS)})
    with pytest.raises(BadRequest, match=f"At most {MAX_MODELS} models"):
        change({"limits_by_model": {"more": {"tokens_per_day": 1}}}, full)
    many = {f"m{number}": {} for number in range(MAX_MODELS + 1)}
    with pytest.raises(BadRequest):
        change({"limits_by_model": many})
