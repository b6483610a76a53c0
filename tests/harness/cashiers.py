"""A cashier whose prices a test sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from exporter.core.model import Span
from exporter.counting.cashier import Cashier
from exporter.pricing.prices import Priced


class FixedPrices(Cashier):
    """Prices each call by a function; `options` are those of `Cashier`."""

    def __init__(self, price: Callable[[Span], Priced], **options: Any) -> None:
        """Take the function for `price`."""
        super().__init__(**options)
        self._fixed = price

    def price(self, span: Span) -> Priced | None:
        """Return what the function says."""
        return self._fixed(span)
