"""One LLM span → its price, where the price comes from, and why.

The order: the user's price file → a valid cost that the span itself reports → built-in corrections → genai-prices →
unpriced. The price is the one in force when the span began. A model that genai-prices does not name is unpriced, never
the price of one with a similar name: its own matching takes `gemini-3.7-flash-lite` for `gemini-3.7-flash`, and an
Azure deployment `my-o4-mini` for `o4-mini`; here what surrounds a name may only be a date, a version, a region or such.

Where cost is not what will be billed, and says so by `cost_source="estimated"`: behind gateways; without cache detail
(an upper bound where the prompt includes cached tokens, a lower one where it leaves them out); xAI's reasoning without
a total; models with prices for audio, images or video, whose tokens no span tells apart from those of text. Not said:
Gemini's thinking tokens are in no span of agno, so cost there is a lower bound; what is billed beyond tokens and
requests (searches, storage, one-hour cache writes) is in no span either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, time
from decimal import Decimal
from typing import Final, NamedTuple

import genai_prices
from genai_prices import data_snapshot, types

from exporter.core.document import shown
from exporter.core.model import MICROSECONDS, TokenUsage
from exporter.core.times import utc
from exporter.pricing import money
from exporter.pricing.pricefile import NO_PRICES, Entry, PriceFile, alias_targets
from exporter.pricing.providers import (
    GENAI_IDS,
    PREFIXES,
    Kind,
    clean_provider,
    route,
    vendor_of,
)
from exporter.pricing.rates import FREE, PRICE_KEYS, REQUEST, Rates, Tiered
from exporter.pricing.tokens import NO_CLASSES, Classes, Habits, classify, habits_of

REPORTED: Final = "reported"
LISTED: Final = "listed"
ESTIMATED: Final = "estimated"
CUSTOM: Final = "custom"
UNPRICED: Final = ""

_DAY: Final = 86_400 * MICROSECONDS
_PLANS: Final = 10_000
_LONGEST_ID: Final = 512


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


# --- Price over time ------------------------------------------------------------------------------------------------


class _Schedule:
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
    """(start, end, daily) in microseconds, of the epoch or of the day; None for what genai-prices has to tell."""
    if isinstance(constraint, types.StartDateConstraint):
        return (constraint.start_date - date(1970, 1, 1)).days * _DAY, 0, False
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


# --- Strict matching ------------------------------------------------------------------------------------------------

_DATE: Final = r"20\d{6}|20\d\d-\d\d-\d\d|\d\d-20\d\d|\d\d-\d\d|\d{4}"
_WORD: Final = (
    "latest|preview|exp|experimental|beta|nightly|default|instruct|it|thinking|maas"
    rf"|v\d+(?:\.\d+)*|0\d\d|\d+k|{_DATE}"
)
_SUFFIX: Final = re.compile(rf"(?:[-@:](?:{_WORD})|:\d+)*")
_FAMILY: Final = re.compile(rf"(?:{_WORD}|e?\d+(?:\.\d+)?b)(?:[-@:](?:{_WORD}|e?\d+(?:\.\d+)?b))*")
"""What may follow a name that genai-prices ends with a hyphen (`gemma-3-` + `27b-it`)"""
_PREFIX: Final = re.compile(
    r"(?:.*/)?(?:(?:global|apac|[a-z]{2}(?:-[a-z]{2,4})?)\.)?"
    r"(?:(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot(?:ai)?|nvidia|openai|qwen|writer|zai)\.)?"
)
"""What may stand before a name: a path or ARN, Bedrock's region, Bedrock's vendor"""
_CUT_DATE: Final = re.compile(r"[-@](20\d\d|0\d?)$")


def _is_suffix(before: str, rest: str) -> bool:
    """Whether `rest`, behind the matched text `before`, leaves the model the same."""
    if not rest:
        return True
    if before.startswith("ft:"):
        rest = rest.partition(":")[0]  # the rest of `ft:<model>:<organisation>:<name>:<id>` is the user's own
        if not rest:
            return True
    elif before.endswith(".ft-"):
        return True
    if before.endswith("@"):
        return _SUFFIX.fullmatch(f"@{rest}") is not None
    if before.endswith("-"):
        return _FAMILY.fullmatch(rest) is not None
    cut = _CUT_DATE.search(before)
    return _SUFFIX.fullmatch(rest) is not None or (
        cut is not None and _SUFFIX.fullmatch(before[cut.start() :] + rest) is not None
    )


def _is_strict(clause: object, ref: str) -> bool:
    """Whether a clause that matches `ref` (in lower case) means this very model."""
    if isinstance(clause, types.ClauseOr):
        return any(part.is_match(ref) and _is_strict(part, ref) for part in clause.or_)
    if isinstance(clause, types.ClauseAnd):
        return clause.is_match(ref) and any(_is_strict(part, ref) for part in clause.and_)
    start = 0
    if isinstance(clause, types.ClauseEquals):
        text = clause.equals.lower()
        return text == ref
    if isinstance(clause, types.ClauseStartsWith):
        text = clause.starts_with.lower()
    elif isinstance(clause, types.ClauseEndsWith):
        text = clause.ends_with.lower()
        start = len(ref) - len(text)
    elif isinstance(clause, types.ClauseContains):
        text = clause.contains.lower()
        start = ref.find(text)
    elif isinstance(clause, types.ClauseRegex):
        found = re.search(clause.regex, ref)
        if found is None or not found.group():
            return False
        text, start = found.group(), found.start()
    else:
        return False
    before, after = ref[:start], ref[start + len(text) :]
    # A path or a region stands before, and nothing that begins a word of its own: `my-o4-mini` is not `o4-mini`.
    return _PREFIX.fullmatch(before) is not None and _is_suffix(text, after)


# --- Corrections ----------------------------------------------------------------------------------------------------

_SPELLINGS: Final = {
    ("huggingface_sambanova", "deepseek-r1-0528"): "deepseek-ai/deepseek-r1-0528",
    ("huggingface_sambanova", "deepseek-r1-distill-llama-70b"): "deepseek-ai/deepseek-r1-distill-llama-70b",
    ("huggingface_sambanova", "deepseek-v3-0324"): "deepseek-ai/deepseek-v3-0324",
    ("huggingface_sambanova", "gpt-oss-120b"): "openai/gpt-oss-120b",
    ("huggingface_sambanova", "meta-llama-3.1-8b-instruct"): "meta-llama/llama-3.1-8b-instruct",
    ("huggingface_sambanova", "meta-llama-3.3-70b-instruct"): "meta-llama/llama-3.3-70b-instruct",
    ("huggingface_sambanova", "qwen3-32b"): "qwen/qwen3-32b",
}
"""(genai-prices id, model as the provider's own API spells it) → as genai-prices spells it"""

_CORRECTIONS: Final = {
    # LiteLLM's price table has it; genai-prices 0.2.3 has only its successors.
    ("together", "minimaxai/minimax-m2.7"): Rates(
        {"input_mtok": Tiered(Decimal("0.3")), "output_mtok": Tiered(Decimal("1.2"))}
    ),
}
"""Prices that genai-prices lacks or has wrong"""

_COMPACT_DATE: Final = re.compile(r"-(20\d\d)(\d\d)(\d\d)(?=-|:|$)")
_CLOUD: Final = ("-cloud", ":cloud")
_DOT: Final = re.compile(r"(?<=\d)\.(?=\d)")
_GOOGLE_PATH: Final = re.compile(r"(?:projects/.*?/|publishers/[^/]*/)?models/")
_OPENROUTER_SUFFIX: Final = re.compile(r":(nitro|floor|online|exacto)$")
_OWN_ARN: Final = re.compile(
    r"arn:[^/]*:(application-inference-profile|provisioned-model|custom-model|custom-model-deployment|imported-model"
    r"|prompt-router|default-prompt-router)/"
)

_DATA_DATES: Final = {"0.2.3": date(2026, 11, 9)}
"""Version of genai-prices → the newest price in force when it was published: it does not date its data itself"""


class _Builtin(NamedTuple):
    """A price that the user did not write: `schedule` is None where there is none, and `rule` says why."""

    source: str
    rule: str
    schedule: _Schedule | Rates | None

    def at(self, when: int) -> Rates | None:
        return self.schedule.at(when) if isinstance(self.schedule, _Schedule) else self.schedule


def _none(why: str) -> _Builtin:
    return _Builtin(UNPRICED, why, None)


def _local(who: str, ref: str) -> _Builtin:
    if who.startswith("ollama") and ref.endswith(_CLOUD):
        return _none("ollama runs this model in its cloud, whose prices are not known")
    return _Builtin(LISTED, f"{who} runs on your own machines: free", FREE)


class _Plan(NamedTuple):
    """What is known of a model once and for all."""

    habits: Habits
    reasoning_open: bool
    """output is a lower bound where no total tells of reasoning"""
    candidates: Sequence[Entry]
    builtin: _Builtin


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

    def __init__(
        self,
        prices: PriceFile = NO_PRICES,
        *,
        prices_update: bool = False,
    ) -> None:
        self._prices_update = prices_update
        self._updates: genai_prices.UpdatePrices | None = None
        self._snapshot = data_snapshot.get_snapshot() if prices_update else _bundled()
        self._plans: dict[tuple[str, str, str], _Plan] = {}
        self._aliased: dict[int, _Builtin] = {}
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
        snapshot = data_snapshot.get_snapshot() if self._prices_update else self._snapshot
        if snapshot is self._snapshot:
            return False
        self._snapshot = snapshot
        self._forget()
        return True

    def close(self) -> None:
        """Fetch no more."""
        if self._updates is not None:
            self._updates.stop()  # type: ignore[no-untyped-call]
            self._updates = None

    def data_timestamp(self, now: int) -> int:
        """When the price data was made, in microseconds since the epoch; fetched data dates from its fetching.

        For bundled data of an unknown version: the start of the newest price that was in force at `now`.
        """
        if self._snapshot.from_auto_update:
            return int(self._snapshot.timestamp.timestamp() * MICROSECONDS)
        known = _DATA_DATES.get(genai_prices.__version__)
        return _midnight(known) if known is not None else newest_price(self._snapshot.providers, now)

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
        """What a call costs that began at `at` (microseconds since the epoch).

        `provider` is agno's string or its label, '' where unknown; `reported` the cost that the span itself reports, in
        USD, passed over unless it is finite and not negative. `exact_classes` says that the source knows cache detail:
        what it leaves out is 0. `model_class` is the `name` of agno's model class, where the span tells it.
        """
        plan = self._plans.get((provider, model, model_class)) or self._plan(provider, model, model_class)
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
        """Which rule prices this model at `at`, unless the span reports its cost and the user has no price for it."""
        plan = self._plans.get((provider, model, model_class)) or self._plan(provider, model, model_class)
        custom = self._custom(plan.candidates, at)
        if custom is not None:
            return custom
        rates = plan.builtin.at(at)
        return Quote(UNPRICED if rates is None else plan.builtin.source, plan.builtin.rule, rates)

    def one_price(
        self, provider: str, model: str, calls: Iterable[tuple[int, int]], *, cached: int, model_class: str = ""
    ) -> bool:
        """Whether calls, each (start, prompt), share prices and tier, however `cached` tokens spread over them."""
        plan = self._plans.get((provider, model, model_class)) or self._plan(provider, model, model_class)
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
        """What all spellings of a model have in common: aliases, names with a date and names for a region.

        It is the model's id in the price list `genai`, in lower case; where that has no such model, the model itself.
        An alias of the user's file for a model of that list counts as what it stands for.
        """
        ref = model.strip().lower()
        uses = (entry.use for entry in self.file.candidates(clean_provider(provider), model) if entry.use is not None)
        aliased = next((use.model.lower() for use in uses if route(use.provider).genai == genai), ref)
        aliased = _without_path(genai, aliased)
        found = self._match(genai, aliased) if len(aliased) <= _LONGEST_ID else None
        return aliased if found is None else found.id.lower()

    def dangling(self) -> list[Entry]:
        """Entries of the user's file whose alias leads to a model that has no price."""
        return [
            entry
            for entry in self.file.entries
            if entry.use is not None
            and not self._targets[entry.number]
            and self._builtin(entry.use.provider, entry.use.model, alias=True).schedule is None
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
                builtin = self._aliased.get(alias.number) or self._alias(alias.number, *alias.use)
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
        label = clean_provider(provider)
        plan = _Plan(
            habits_of(label),
            label == "xai" and "non-reasoning" not in model.lower(),
            self.file.candidates(label, model),
            self._builtin(provider, model, model_class=model_class),
        )
        if len(self._plans) >= _PLANS:  # ids come from outside
            self._plans.clear()
        self._plans[provider, model, model_class] = plan
        return plan

    def _alias(self, number: int, provider: str, model: str) -> _Builtin:
        self._aliased[number] = found = self._builtin(provider, model, alias=True)
        return found

    def _builtin(self, provider: str, model: str, *, model_class: str = "", alias: bool = False) -> _Builtin:
        """The price without the user's file. `alias` also takes ids of genai-prices for providers."""
        kind, genai = route(provider, model_class)
        if alias and kind is Kind.UNKNOWN and provider in GENAI_IDS:
            kind, genai = Kind.LISTED, provider
        label = clean_provider(provider)
        ref = model.strip().lower()
        if not ref or len(ref) > _LONGEST_ID:
            return _none("the span names no model" if not ref else "the model's id is too long for one")
        if kind is Kind.LISTED:
            return self._listed(genai, ref)
        if kind is Kind.GATEWAY:
            return self._vendor(f"gateway {model_class or label}", ref)
        if kind is Kind.LOCAL:
            return _local(label, ref)
        if kind is Kind.NO_DATA:
            return _none(f"no price data for {label}")
        who = f"{shown(label)} is not one of agno's providers" if label else "the provider is unknown"
        return _none(f"{who}, and a price is never guessed")

    def _listed(self, genai: str, ref: str) -> _Builtin:
        """The price list of one provider."""
        if genai == "openrouter":
            return self._openrouter(ref)
        ref = _without_path(genai, ref)
        own = _OWN_ARN.match(ref) if genai == "aws" else None
        if own:
            return _none(f"an {own[1]} names no model; alias it in the price file")
        return self._find(genai, ref) or _none(f"{self._data} has no model {shown(ref)} of {genai}")

    def _find(self, genai: str, ref: str) -> _Builtin | None:
        """This very model in the price list of one provider; None where it is not there."""
        rates = _CORRECTIONS.get((genai, ref))
        if rates is not None:
            return _Builtin(LISTED, f"built-in correction: {genai} {ref}", rates)
        ref = _SPELLINGS.get((genai, ref), ref)
        found = self._match(genai, ref)
        if found is None:
            return None
        schedule = _Schedule(found.prices)
        if any(rates.prices for _, _, rates in schedule.dated):
            return _Builtin(LISTED, f"{self._data}: {genai} {found.id}", schedule)
        if ref.endswith(":free") or (genai == "google" and ref.startswith("gemma-")):
            # Google's API serves Gemma free of charge, where genai-prices does not say otherwise.
            return _Builtin(LISTED, f"{self._data}: {genai} {found.id} is free", FREE)
        return _none(f"{self._data} names {genai} {found.id} without a price")

    def _match(self, genai: str, ref: str) -> types.ModelInfo | None:
        """What genai-prices takes this model for, if it is the very model."""
        providers = self._snapshot.providers
        provider = next((provider for provider in providers if provider.id == genai), None)
        found = provider.find_model(ref, all_providers=providers) if provider else None
        if found is None or (ref.startswith("ft:") and not found.id.startswith("ft:")):
            return None  # or the base model's price
        # The library retries with 2025-12-11 in place of 20251211.
        spelled = ref if found.is_match(ref) else _COMPACT_DATE.sub(r"-\1-\2-\3", ref)
        return found if spelled == found.id.lower() or _is_strict(found.match, spelled) else None

    def _openrouter(self, ref: str) -> _Builtin:
        if ref.endswith(":free"):
            return _Builtin(LISTED, "openrouter's :free models cost nothing", FREE)
        plain, online = ref, False
        found = self._find("openrouter", plain)
        while found is None and (suffix := _OPENROUTER_SUFFIX.search(plain)):
            plain, online = plain[: suffix.start()], online or suffix[1] == "online"
            found = self._find("openrouter", plain)
        if plain.startswith("openrouter/") and found is None:
            return _none("openrouter chooses the model: only a reported cost tells the price")
        if found is None and "/" not in plain and (vendor := vendor_of(plain)):
            found = self._find("openrouter", f"{vendor.prefix}/{plain}")
        if found is None:
            found = self._vendor("openrouter", plain)
        if online and found.schedule is not None:
            return _Builtin(ESTIMATED, f"{found.rule}; what :online searches cost is not known", found.schedule)
        return found

    def _vendor(self, who: str, ref: str) -> _Builtin:
        """The vendor's own list price, as an estimate of what `who` takes.

        The provider is told by the id's prefix, else the vendor by the model's name.
        """
        prefix, slash, rest = ref.partition("/")
        genai = PREFIXES.get(prefix) if slash else None
        if genai == "openrouter":
            found = self._openrouter(rest)
        elif genai == "local":
            found = _local(prefix, rest)
        elif genai is not None:
            found = self._listed(genai, rest)
        else:
            last = ref.rpartition("/")[2]
            vendor = vendor_of(last)
            if vendor is None or not vendor.genai:
                return _none(f"{who}: the id {shown(ref)} does not tell who sells the model")
            found = self._listed(vendor.genai, last)
            if found.schedule is None and last != (dashed := _DOT.sub("-", last)):
                found = self._listed(vendor.genai, dashed)  # grok-4.1-fast is xAI's grok-4-1-fast
        if found.schedule is None:
            return _none(f"{who}: {found.rule}")
        return _Builtin(ESTIMATED, f"{who}, at its vendor's price: {found.rule}", found.schedule)

    @property
    def _data(self) -> str:
        updated = self._snapshot.from_auto_update
        return "genai-prices, updated" if updated else f"genai-prices {genai_prices.__version__}"


def _without_path(genai: str, ref: str) -> str:
    """A model without the path that Google's APIs put before it."""
    return _GOOGLE_PATH.sub("", ref, count=1) if genai == "google" and _GOOGLE_PATH.match(ref) else ref


def _bundled() -> data_snapshot.DataSnapshot:
    from genai_prices.data import providers  # noqa: PLC0415 - megabytes of it

    return data_snapshot.DataSnapshot(providers=providers, from_auto_update=False)


def _midnight(day: date) -> int:
    return (day - date(1970, 1, 1)).days * _DAY


def newest_price(providers: Sequence[types.Provider], now: int) -> int:
    """Since when the newest of all prices that are in force at `now` holds; 0 where none has a date. Microseconds."""
    starts = (
        _midnight(price.constraint.start_date)
        for provider in providers
        for model in provider.models
        if not isinstance(model.prices, types.ModelPrice)
        for price in model.prices
        if isinstance(price.constraint, types.StartDateConstraint)
    )
    return max((start for start in starts if start <= now), default=0)


def per_million(rates: Rates) -> Mapping[str, str]:
    """Prices as people write them: field of genai-prices → `2.5`, or `2.5, above 200000 tokens 5`."""
    return {
        key: ", ".join(
            (f"{tiered.base.normalize():f}", *(f"above {above} tokens {p.normalize():f}" for above, p in tiered.tiers))
        )
        for key, tiered in rates.prices.items()
    }
