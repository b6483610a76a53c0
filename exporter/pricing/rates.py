"""USD for one token of each class, by price tier, in whole units of money."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from exporter.pricing.money import FINE, PER_TOKEN, USD, units
from exporter.pricing.tokens import TOKEN_CLASSES, Classes

REQUEST: Final = ""
"""In place of a token class: money that no class of tokens carries (a fee per request, a reported total)"""

REPORTED: Final = "reported"
LISTED: Final = "listed"
ESTIMATED: Final = "estimated"
CUSTOM: Final = "custom"
UNPRICED: Final = ""

_HALF: Final = FINE // 2

PRICE_KEYS: Final = (
    "input_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "output_mtok",
    "output_reasoning_mtok",
    "requests_kcount",
)
"""The fields of genai-prices that spans have counts for: USD per million tokens, or per 1,000 requests"""


class Tiered(NamedTuple):
    """A price in USD, and the prices that replace it if more input than a threshold is billed, ascending."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()


class Bracket(NamedTuple):
    """Fine units of money per token where billed input is more than `above`; None where no price is known."""

    above: int
    input: int | None
    cache_read: int | None
    cache_write: int | None
    output: int | None
    reasoning: int | None


class Rates:
    """Compiled prices.

    A class without its own price has the price of the class that it is a part of: cached tokens that of input,
    reasoning that of output. A tier applies to all tokens of the call, not only to those above the threshold
    (genai-prices: the threshold model).
    """

    __slots__ = ("brackets", "cache_matters", "free", "media", "prices", "reasoning_matters", "request", "tiered")

    def __init__(self, prices: Mapping[str, Tiered], media: tuple[str, ...] = ()) -> None:
        """`media` names media with their own prices, whose tokens no span separates from text."""
        self.media = media
        self.prices = {key: prices[key] for key in PRICE_KEYS if key in prices}
        starts = sorted({above for tiered in self.prices.values() for above, _ in tiered.tiers})
        self.brackets = tuple(self._bracket(above) for above in (-1, *starts))
        fee = self.prices.get("requests_kcount")
        self.request = 0 if fee is None else units(fee.base, USD // 1000)
        self.tiered = len(self.brackets) > 1
        self.free = not self.request and all(not any(bracket[1:]) for bracket in self.brackets)
        self.cache_matters = any({b.cache_read, b.cache_write} != {b.input} for b in self.brackets)
        """whether it makes a difference how much of the input was cached"""
        self.reasoning_matters = any(b.reasoning != b.output for b in self.brackets)

    def _bracket(self, above: int) -> Bracket:
        def rate(key: str) -> int | None:
            tiered = self.prices.get(key)
            if tiered is None:
                return None
            price = tiered.base
            for start, higher in tiered.tiers:
                if start <= above:
                    price = higher
            return units(price, PER_TOKEN)

        plain, output = rate("input_mtok"), rate("output_mtok")
        read, write, reasoning = rate("cache_read_mtok"), rate("cache_write_mtok"), rate("output_reasoning_mtok")
        return Bracket(
            above,
            plain,
            plain if read is None else read,
            plain if write is None else write,
            output,
            output if reasoning is None else reasoning,
        )

    def bracket(self, billed_input: int) -> Bracket:
        """The tier of a call with this much billed input."""
        reached = self.brackets[0]
        for bracket in self.brackets[1:]:
            if billed_input <= bracket.above:
                break
            reached = bracket
        return reached

    def cost(self, classes: Classes) -> dict[str, int] | None:
        """Money of one call by token class, without classes that have no tokens; None where one has no price."""
        bracket = self.bracket(classes.billed_input) if self.tiered else self.brackets[0]
        usd: dict[str, int] = {}
        for name, count, rate in zip(TOKEN_CLASSES, classes, bracket[1:], strict=True):
            if count:
                if rate is None:
                    return None
                usd[name] = (count * rate + _HALF) // FINE
        if self.request:
            usd[REQUEST] = self.request
        return usd

    def savings(self, classes: Classes) -> int | None:
        """How much more the tokens read from a cache would have cost as input; None where that is not known.

        Never negative: a price list where a cache costs more than it saves saves nothing.
        """
        bracket = self.bracket(classes.billed_input)
        if classes.cache_read is None or bracket.input is None or bracket.cache_read is None:
            return None
        return max(0, (classes.cache_read * (bracket.input - bracket.cache_read) + _HALF) // FINE)


FREE: Final = Rates({"input_mtok": Tiered(Decimal(0)), "output_mtok": Tiered(Decimal(0))})
"""Prices of a free model"""


def per_million(rates: Rates) -> Mapping[str, str]:
    """Prices as people write them: field of genai-prices → `2.5`, or `2.5, above 200000 tokens 5`."""
    return {
        key: ", ".join(
            (f"{tiered.base.normalize():f}", *(f"above {above} tokens {p.normalize():f}" for above, p in tiered.tiers))
        )
        for key, tiered in rates.prices.items()
    }
