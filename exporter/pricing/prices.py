"""The price of one LLM span, where the price comes from, and why.

The order: the user's price file → a valid cost that the span itself reports → built-in corrections → genai-prices →
unpriced. The price is the one in force when the span began. `price_list` has the last three.

`cost_source="estimated"` marks a cost that is not what will be billed: behind gateways; without cache detail (an upper
bound if the prompt includes cached tokens, a lower one if it leaves them out); xAI's reasoning without a total; models
with prices for audio, images or video, whose tokens no span separates from text. Two errors are not marked: Gemini's
thinking tokens are in no span of agno, so that cost is a lower bound; and no span has what is billed beyond tokens and
requests (searches, storage, one-hour cache writes).
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
    """The price of one span.

    `usd` maps token classes to units of 10**-18 USD, without classes that have no tokens. Its class "" has money of no
    token class: a reported total, a fee per request. `usd` is None, and `cost_source` "", if no price is known; `rule`
    says why. `classes` are the tokens, priced or not. `saved` is what cached tokens would have cost more as input, in
    the same units; None if unknown.
    """

    classes: Classes
    usd: dict[str, int] | None
    cost_source: str
    rule: str
    saved: int | None = None

    @property
    def total(self) -> int | None:
        """Units of 10**-18 USD of the whole span; None if it is unpriced."""
        return None if self.usd is None else sum(self.usd.values())


class Quote(NamedTuple):
    """The rule that prices a model at some time; `rates` is None if there is no price."""

    cost_source: str
    rule: str
    rates: Rates | None


class _Plan(NamedTuple):
    """The facts about a model that do not change."""

    habits: Habits
    reasoning_open: bool
    """output is a lower bound unless the total shows reasoning"""
    candidates: Sequence[Entry]
    builtin: ListPrice


def _why_estimated(plan: _Plan, rates: Rates, usage: TokenUsage, classes: Classes) -> str:
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
    return _why_reasoning_is_estimated(plan, rates, usage) if classes.reasoning is None else ""


def _why_reasoning_is_estimated(plan: _Plan, rates: Rates, usage: TokenUsage) -> str:
    if plan.reasoning_open and usage.total is None:
        return "xAI may have left reasoning out, a lower bound"
    return "reasoning tokens are unknown and count as output" if rates.reasoning_matters else ""


class Pricer:
    """Prices spans; each model is looked up once.

    Not safe for several threads at once. `prices_update` lets `start_updates` fetch newer prices from the network;
    otherwise only the data inside the installed genai-prices is used, even if other code in this process updates it.
    """

    def __init__(self, prices: PriceFile = NO_PRICES, *, prices_update: bool = False) -> None:
        self._prices_update = prices_update
        self._updates: genai_prices.UpdatePrices | None = None
        self._list = PriceList(data_snapshot.get_snapshot() if prices_update else bundled())
        self._plans: dict[tuple[str, str, str], _Plan] = {}
        self._aliased: dict[int, ListPrice] = {}
        """by number of the entry: the price of the target of its alias"""
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
        """Fetch newer prices in a thread, every so many seconds, if `prices_update` allows it."""
        if not self._prices_update or self._updates is not None:
            return False
        self._updates = genai_prices.UpdatePrices(update_interval=every)
        self._updates.start()
        return True

    def refresh(self) -> bool:
        """Use prices that were fetched since the last call, and return whether there were any. Cheap."""
        snapshot = data_snapshot.get_snapshot() if self._prices_update else self._list.snapshot
        if snapshot is self._list.snapshot:
            return False
        self._list = PriceList(snapshot)
        self._forget()
        return True

    def close(self) -> None:
        """Stop fetching prices."""
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
        """The price of a call; times are in microseconds since the epoch.

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
        """Entries of the user's file that are aliases of a model without a price."""
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
        doubt = _why_estimated(plan, rates, usage, classes)
        if doubt:
            return Priced(classes, usd, ESTIMATED, f"{rule}; {doubt}", saved)
        return Priced(classes, usd, source, rule, saved)

    def _custom(self, candidates: Sequence[Entry], at: int) -> Quote | None:
        """The price in the user's file at this time; None if there is none."""
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
