"""One LLM span → its price, where the price comes from, and why.

The order: the user's price file → a valid cost that the span itself reports → built-in corrections → genai-prices →
unpriced. The price is the one in force when the span began. `price_list` has what follows the reported cost.

Where cost is not what will be billed, and says so by `cost_source="estimated"`: behind gateways; without cache detail
(an upper bound where the prompt includes cached tokens, a lower one where it leaves them out); xAI's reasoning without
a total; models with prices for audio, images or video, whose tokens no span tells apart from those of text. Not said:
Gemini's thinking tokens are in no span of agno, so cost there is a lower bound; what is billed beyond tokens and
requests (searches, storage, one-hour cache writes) is in no span either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import genai_prices
from genai_prices import data_snapshot

from exporter.core.model import TokenUsage
from exporter.pricing import money
from exporter.pricing.entries import NO_PRICES, Entry, PriceFile, alias_targets
from exporter.pricing.price_list import ListPrice, PriceList, bundled
from exporter.pricing.providers import clean_provider, route
from exporter.pricing.rates import CUSTOM, ESTIMATED, REPORTED, REQUEST, UNPRICED, Rates
from exporter.pricing.tokens import NO_CLASSES, Classes, Habits, classify, habits_of

_PLANS: Final = 10_000


class Priced(NamedTuple):
    """What one span costs.

    `usd` maps token classes to units of 10**-18 USD, without classes that have no tokens; the class "" carries what no
    class of tokens does: a reported total, a fee per request. It is None, and `cost_source` "", where no price is
    known; `rule` says why. `classes` are the tokens, whether priced or not. `saved` is what cached tokens would have
    cost more as input, in the same units; None where that is not known.
    """

    classes: Classes
    usd: dict[str, int] | None
    cost_source: str
    rule: str
    saved: int | None = None

    @property
    def total(self) -> int | None:
        """Units of 10**-18 USD of the whole span; None where it is unpriced."""
        return None if self.usd is None else sum(self.usd.values())


class Quote(NamedTuple):
    """Which rule prices a model at some time; `rates` is None where none does."""

    cost_source: str
    rule: str
    rates: Rates | None


class _Plan(NamedTuple):
    """What is known of a model once and for all."""

    habits: Habits
    reasoning_open: bool
    """output is a lower bound where no total tells of reasoning"""
    candidates: Sequence[Entry]
    builtin: ListPrice


def _doubt(plan: _Plan, rates: Rates, usage: TokenUsage, classes: Classes) -> str:
    """Why the cost may differ from the bill; '' if the tokens determine it."""
    if classes.input is None or classes.output is None:
        return "some token counts are missing, a lower bound"
    if rates.media:
        return f"tokens of {' and '.join(rates.media)} are not told apart and count as text, a lower bound"
    if classes.cache_read is None or classes.cache_write is None:
        if plan.habits.without_cache:
            return "cached tokens are unknown and left out, a lower bound"
        if rates.cache_matters:
            return "cached tokens are unknown and count as input, an upper bound"
    return _reasoning_doubt(plan, rates, usage) if classes.reasoning is None else ""


def _reasoning_doubt(plan: _Plan, rates: Rates, usage: TokenUsage) -> str:
    if plan.reasoning_open and usage.total is None:
        return "xAI may have left reasoning out, a lower bound"
    return "reasoning tokens are unknown and count as output" if rates.reasoning_matters else ""


class Pricer:
    """Prices spans; the look-up of each model is done once.

    Not for use by several threads at once. `prices_update` lets `start_updates` fetch newer prices from the network;
    otherwise only the data that genai-prices came with is used, whoever else updates it in this process.
    """

    def __init__(self, prices: PriceFile = NO_PRICES, *, prices_update: bool = False) -> None:
        self._prices_update = prices_update
        self._updates: genai_prices.UpdatePrices | None = None
        self._list = PriceList(data_snapshot.get_snapshot() if prices_update else bundled())
        self._plans: dict[tuple[str, str, str], _Plan] = {}
        self._aliased: dict[int, ListPrice] = {}
        """by number of the entry: the price of what it is an alias for"""
        self.use(prices)

    # Data

    def use(self, prices: PriceFile) -> None:
        """From now on these are the user's prices."""
        self.file = prices
        self._targets = {entry.number: alias_targets(prices, entry) for entry in prices.entries if entry.use}
        self._forget()

    def _forget(self) -> None:
        self._plans.clear()
        self._aliased.clear()

    def start_updates(self, every: float = 3600) -> bool:
        """Fetch newer prices in a thread, every so many seconds; only where `prices_update` allows it."""
        if not self._prices_update or self._updates is not None:
            return False
        self._updates = genai_prices.UpdatePrices(update_interval=every)
        self._updates.start()
        return True

    def refresh(self) -> bool:
        """Take over prices that were fetched since; returns whether there were any. Cheap enough to be called often."""
        snapshot = data_snapshot.get_snapshot() if self._prices_update else self._list.snapshot
        if snapshot is self._list.snapshot:
            return False
        self._list = PriceList(snapshot)
        self._forget()
        return True

    def close(self) -> None:
        """Fetch no more."""
        if self._updates is not None:
            self._updates.stop()  # type: ignore[no-untyped-call]
            self._updates = None

    def data_timestamp(self, now: int) -> int:
        """See PriceList.made."""
        return self._list.made(now)

    # Prices

    def price(
        self,
        provider: str,
        model: str,
        usage: TokenUsage,
        *,
        at: int,
        reported: Decimal | float | None = None,
        exact_classes: bool,
        model_class: str = "",
    ) -> Priced:
        """What a call costs; times are in microseconds since the epoch.

        Args:
            provider: agno's string or its label; '' where it is unknown.
            model: The id of the model, as the span has it.
            usage: The tokens, as the span has them.
            at: When the call began.
            reported: The cost that the span itself reports, in USD; passed over unless it is finite and not negative.
            exact_classes: Whether the source knows cache detail, so that what it leaves out is 0.
            model_class: The `name` of agno's model class; '' where the span does not tell it.

        """
        plan = self._plan(provider, model, model_class)
        classes = classify(usage, plan.habits, exact=exact_classes)
        custom = self._custom(plan.candidates, at) if plan.candidates else None
        if custom is not None:
            priced = self._priced(plan, custom, usage, classes)
            if priced.usd is not None:
                return priced
        if reported is not None:
            total = money.reported(reported)
            if total is not None:
                return Priced(classes, {REQUEST: total}, REPORTED, "the cost that the span itself reports")
        if custom is not None:
            return priced
        builtin = plan.builtin
        return self._priced(plan, Quote(builtin.source, builtin.rule, builtin.at(at)), usage, classes)

    def quote(self, provider: str, model: str, *, at: int, model_class: str = "") -> Quote:
        """The rule that prices a model, unless the span reports its cost and the price file does not have the model.

        Args:
            provider: The provider as spans name it, '' if unknown.
            model: The model.
            at: When the call began, in microseconds.
            model_class: Name of agno's model class.

        """
        plan = self._plan(provider, model, model_class)
        custom = self._custom(plan.candidates, at)
        if custom is not None:
            return custom
        rates = plan.builtin.at(at)
        return Quote(UNPRICED if rates is None else plan.builtin.source, plan.builtin.rule, rates)

    def one_price(
        self, provider: str, model: str, calls: Iterable[tuple[int, int]], *, cached: int, model_class: str = ""
    ) -> bool:
        """Whether some calls have the same prices and tier, however their cached tokens are divided among them.

        Args:
            provider: The provider as spans name it, '' if unknown.
            model: The model.
            calls: Start (microseconds) and prompt tokens of each call.
            cached: Their cached tokens together.
            model_class: Name of agno's model class.

        """
        plan = self._plan(provider, model, model_class)
        spread = cached if plan.habits.without_cache else 0
        met: set[object] = set()
        for at, prompt in calls:
            rates = self.quote(provider, model, at=at, model_class=model_class).rates
            met.update(
                None if rates is None else (rates.request, rates.bracket(billed))
                for billed in (prompt, prompt + spread)
            )
        return len(met) <= 1

    def common_name(self, provider: str, model: str, genai: str) -> str:
        """The name that all spellings of a model share: aliases, names with a date, names with a region.

        An alias of the user's price file counts as the model that it stands for.

        Args:
            provider: The provider as spans name it, '' if unknown.
            model: The model.
            genai: Id of a provider in genai-prices, in whose price list the model is looked up.

        Returns:
            The model's id there, in lower case; the model itself if it is not there.

        """
        uses = (entry.use for entry in self.file.candidates(clean_provider(provider), model) if entry.use is not None)
        aliased = next((use.model for use in uses if route(use.provider).genai == genai), model)
        return self._list.name(genai, aliased)

    def dangling(self) -> list[Entry]:
        """Entries of the user's file whose alias leads to a model that has no price."""
        return [
            entry
            for entry in self.file.entries
            if entry.use is not None
            and not self._targets[entry.number]
            and self._list.find(*entry.use, alias=True).schedule is None
        ]

    @staticmethod
    def _priced(plan: _Plan, quote: Quote, usage: TokenUsage, classes: Classes) -> Priced:
        source, rule, rates = quote
        if classes == NO_CLASSES:
            return Priced(classes, None, UNPRICED, "the span has no token counts")
        if rates is None:
            return Priced(classes, None, UNPRICED, rule)
        usd = rates.cost(classes)
        if usd is None:
            return Priced(classes, None, UNPRICED, f"{rule}: it has no price for some of these tokens")
        if rates.free:
            return Priced(classes, usd, source, rule)
        saved = rates.savings(classes) if rates.cache_matters else None
        doubt = _doubt(plan, rates, usage, classes)
        if doubt:
            return Priced(classes, usd, ESTIMATED, f"{rule}; {doubt}", saved)
        return Priced(classes, usd, source, rule, saved)

    def _custom(self, candidates: Sequence[Entry], at: int) -> Quote | None:
        """What the user's file says at this time; None where it says nothing."""
        rule = "price file, "
        alias: Entry | None = None
        while True:
            entry = next((e for e in candidates if e.valid_from is None or e.valid_from <= at), None)
            if entry is None:
                if alias is None or alias.use is None:
                    return None
                builtin = self._aliased.get(alias.number)
                if builtin is None:
                    self._aliased[alias.number] = builtin = self._list.find(*alias.use, alias=True)
                rates = builtin.at(at)
                source = UNPRICED if rates is None else ESTIMATED if builtin.source == ESTIMATED else CUSTOM
                return Quote(source, f"{rule}{builtin.rule}", rates)
            rule += str(entry)
            if entry.use is None:
                return Quote(CUSTOM, rule, entry.rates)
            rule += f" → {entry.use}: "
            alias, candidates = entry, self._targets[entry.number]

    # Look-up, once per model

    def _plan(self, provider: str, model: str, model_class: str) -> _Plan:
        plan = self._plans.get((provider, model, model_class))
        if plan is not None:
            return plan
        label = clean_provider(provider)
        plan = _Plan(
            habits_of(label),
            label == "xai" and "non-reasoning" not in model.lower(),
            self.file.candidates(label, model),
            self._list.find(provider, model, model_class=model_class),
        )
        if len(self._plans) >= _PLANS:  # ids come from outside
            self._plans.clear()
        self._plans[provider, model, model_class] = plan
        return plan
