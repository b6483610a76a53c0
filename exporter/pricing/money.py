"""Exact money: whole numbers of 10**-18 USD, so that a sum is the same in any order and never drifts.

Prices per token are kept finer still: list prices have up to 17 decimals per million tokens (0.18000000000000002). So
only the cost of a call is rounded, once per token class, and only where such a price makes it necessary.
SQLite's integers end at 9.2 USD in this unit: what stores a sum stores it as text.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

USD: Final = 10**18
"""Units in a dollar"""

FINE: Final = 10**6
"""Parts of a unit in which prices per token are kept"""

PER_TOKEN: Final = USD * FINE // 10**6
"""Fine units per token at a price of one dollar per million tokens"""

_WIDE: Final = Context(prec=400, rounding=ROUND_HALF_EVEN)
"""Wide enough for the largest float to its last digit"""


def units(amount: Decimal, scale: int = USD) -> int:
    """`amount` times `scale` as a whole number, exact or rounded half to even.

    Raises ValueError for a negative or infinite amount, or one that is no number.
    """
    if not amount.is_finite() or amount < 0:
        raise ValueError("money is a finite number, and not negative")
    return int(_WIDE.multiply(amount, Decimal(scale)).to_integral_value(ROUND_HALF_EVEN, _WIDE))


def reported(amount: object) -> int | None:
    """Units of a cost that a span reports; None unless it is a finite number and not negative.

    A float stands for the shortest decimal that is read as it: 0.00123 is 0.00123 exactly.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float | Decimal):
        return None
    try:
        return units(Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount))
    except (ValueError, ArithmeticError):
        return None


def decimal(amount: int) -> Decimal:
    """Units as dollars, exactly."""
    return Decimal((0 if amount >= 0 else 1, Decimal(abs(amount)).as_tuple().digits, -18))


def text(amount: int) -> str:
    """Dollars as a plain decimal without trailing zeros: `0.010196`, `0`, `12`."""
    whole, rest = divmod(abs(amount), USD)
    fraction = f"{rest:018d}".rstrip("0")
    return f"{'-' if amount < 0 else ''}{whole}{'.' if fraction else ''}{fraction}"
