"""Exact money: what is added never drifts."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.model import TokenUsage
from exporter.pricing import money
from exporter.pricing.prices import Pricer
from exporter.pricing.rates import Rates, Tiered
from exporter.pricing.tokens import Classes

AT = 1_795_176_000 * 10**6


def test_ten_million_tiny_costs_add_up() -> None:
    """One token at 0.075 USD per million, ten million times: 0.75 USD, where floats say something else."""
    priced = Pricer().price("OpenAI", "gpt-5.4-mini", TokenUsage(prompt=1, cache_read=1), at=AT, exact_classes=True)
    assert priced.usd == {"cache_read": 75 * money.USD // 10**9}
    assert sum([priced.total] * 10_000_000) == money.USD * 3 // 4
    assert sum([7.5e-08] * 10_000_000) != 0.75  # which is why


def test_mixed_costs_add_up_in_any_order() -> None:
    rates = Rates({"input_mtok": Tiered(Decimal("0.0028")), "output_mtok": Tiered(Decimal("0.28"))})
    cost = rates.cost(Classes(input=1, output=1))
    assert cost is not None
    costs = [*cost.values(), 1] * 333_333
    total = sum(costs)
    assert total == sum(reversed(costs)) == sum(sorted(costs))
    assert money.decimal(total) == 333_333 * (Decimal("0.0028") / 10**6 + Decimal("0.28") / 10**6 + Decimal(10) ** -18)


def test_a_price_finer_than_a_unit_is_rounded_per_call_and_not_per_token() -> None:
    """A twelfth of a dollar per million tokens, as a price list has it."""
    rates = Rates({"input_mtok": Tiered(Decimal("0.0833333333333333")), "output_mtok": Tiered(Decimal(0))})
    cost = rates.cost(Classes(input=10**9))
    assert cost is not None
    assert money.text(cost["input"]) == "83.3333333333333"
    assert rates.cost(Classes(input=1)) == {"input": 83_333_333_333}


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (0.00123, "0.00123"),
        (Decimal("0.00123"), "0.00123"),
        (0, "0"),
        (-0.0, "0"),
        (7, "7"),
        (0.1, "0.1"),
        (1e-18, "0.000000000000000001"),
        (5e-19, "0"),  # half to even
        (1.5e-18, "0.000000000000000002"),
        (1e300, "1" + 300 * "0"),
        (1e-300, "0"),
    ],
)
def test_a_reported_cost(amount: object, expected: str) -> None:
    found = money.reported(amount)
    assert found is not None
    assert money.text(found) == expected


@pytest.mark.parametrize(
    "amount",
    [-1, -1e-9, math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), True, None, "1"],
)
def test_no_cost(amount: object) -> None:
    assert money.reported(amount) is None


def test_units_refuse_what_is_no_money() -> None:
    for amount in ("-0.1", "NaN", "Infinity"):
        with pytest.raises(ValueError, match="finite"):
            money.units(Decimal(amount))


@given(st.decimals(0, 10**9, places=18))
def test_exact_there_and_back(amount: Decimal) -> None:
    units = money.units(amount)
    assert money.decimal(units) == amount
    assert Decimal(money.text(units)) == amount
    assert money.text(-units) in {f"-{money.text(units)}", "0"}


@given(st.integers(0, 10**40))
def test_text_has_no_exponent_and_no_trailing_zeros(units: int) -> None:
    text = money.text(units)
    assert set(text) <= set("0123456789.")
    assert "." not in text or text[-1] not in "0."
    assert money.units(Decimal(text)) == units
