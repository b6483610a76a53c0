"""The prices of a model over time, as genai-prices has them, become rates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, time
from typing import Final

from genai_prices import types

from exporter.core.model import MICROSECONDS
from exporter.core.times import utc
from exporter.pricing.rates import PRICE_KEYS, Rates, Tiered

_DAY: Final = 86_400 * MICROSECONDS


class Schedule:
    """The prices of a model by time: the last active of its conditional prices, as genai-prices chooses."""

    def __init__(self, prices: types.ModelPrice | Sequence[types.ConditionalPrice]) -> None:
        dated = [(None, prices)] if isinstance(prices, types.ModelPrice) else [(p.constraint, p.prices) for p in prices]
        self.first = _rates(dated[0][1])
        self.dated = [(constraint, _bounds(constraint), _rates(price)) for constraint, price in reversed(dated)]
        self.constant = len(dated) == 1

    def at(self, when: int) -> Rates:
        """The prices in force at `when`, in microseconds since the epoch."""
        if self.constant:
            return self.first
        for constraint, bounds, rates in self.dated:
            if bounds is None:
                if constraint is None or constraint.active(utc(when)):
                    return rates
                continue
            start, end, daily = bounds
            if not daily:
                if when >= start:
                    return rates
            elif start <= end:
                if start <= when % _DAY < end:
                    return rates
            elif not end <= when % _DAY < start:
                return rates
        return self.first


def _bounds(constraint: object) -> tuple[int, int, bool] | None:
    """(start, end, daily) in microseconds, of the epoch or of the day; None if genai-prices has to decide."""
    if isinstance(constraint, types.StartDateConstraint):
        return midnight(constraint.start_date), 0, False
    if isinstance(constraint, types.TimeOfDateConstraint):
        zones = {constraint.start_time.tzinfo, constraint.end_time.tzinfo}
        if zones <= {None, UTC}:
            return _of_day(constraint.start_time), _of_day(constraint.end_time), True
    return None


def _of_day(moment: time) -> int:
    seconds = (moment.hour * 60 + moment.minute) * 60 + moment.second
    return seconds * MICROSECONDS + moment.microsecond


def _rates(price: types.ModelPrice) -> Rates:
    prices: dict[str, Tiered] = {}
    for key in PRICE_KEYS:
        value = getattr(price, key)
        if isinstance(value, types.TieredPrices):
            prices[key] = Tiered(value.base, tuple((tier.start, tier.price) for tier in value.tiers))
        elif value is not None:
            prices[key] = Tiered(value)
    return Rates(prices, _media(price))


def _media(price: types.ModelPrice) -> tuple[str, ...]:
    """What of audio, image and video costs another price than text, be it by token or by hour."""
    prices = {key: value for key, value in vars(price).items() if value is not None}
    return tuple(
        medium
        for medium in ("audio", "image", "video")
        if f"{medium}_hours" in prices
        or any(
            key in prices and prices[key] != prices.get(f"{way}_mtok")
            for way, key in (("input", f"input_{medium}_mtok"), ("output", f"output_{medium}_mtok"))
        )
    )


def midnight(day: date) -> int:
    """When a day begins in UTC, in microseconds since the epoch."""
    return (day - date(1970, 1, 1)).days * _DAY


def newest_price(providers: Sequence[types.Provider], now: int) -> int:
    """Microseconds: the start of the newest price that is in force at `now`; 0 if no price has a date."""
    starts = (
        midnight(price.constraint.start_date)
        for provider in providers
        for model in provider.models
        if not isinstance(model.prices, types.ModelPrice)
        for price in model.prices
        if isinstance(price.constraint, types.StartDateConstraint)
    )
    return max((start for start in starts if start <= now), default=0)
