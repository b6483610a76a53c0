"""Prices of models without the user's price file: built-in corrections, then genai-prices.

A model that genai-prices does not name is unpriced, and never gets the price of a similar name.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Final, NamedTuple

import genai_prices
from genai_prices import data_snapshot, types

from exporter.core.document import shown
from exporter.core.model import MICROSECONDS
from exporter.pricing.matching import is_strict
from exporter.pricing.providers import GENAI_IDS, PREFIXES, Kind, clean_provider, route, vendor_of
from exporter.pricing.rates import ESTIMATED, FREE, LISTED, UNPRICED, Rates, Tiered
from exporter.pricing.schedule import Schedule, midnight, newest_price

_LONGEST_ID: Final = 512

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


class ListPrice(NamedTuple):
    """A price from outside the user's file. `schedule` is None if there is no price; `rule` says why."""

    source: str
    rule: str
    schedule: Schedule | Rates | None

    def at(self, when: int) -> Rates | None:
        """The prices in force at `when`, in microseconds since the epoch."""
        return self.schedule.at(when) if isinstance(self.schedule, Schedule) else self.schedule


def _none(why: str) -> ListPrice:
    return ListPrice(UNPRICED, why, None)


def _local(who: str, ref: str) -> ListPrice:
    if who.startswith("ollama") and ref.endswith(_CLOUD):
        return _none("ollama runs this model in its cloud, whose prices are not known")
    return ListPrice(LISTED, f"{who} runs on your own machines: free", FREE)


def _without_path(genai: str, ref: str) -> str:
    """A model without the path that Google's APIs put before it."""
    return _GOOGLE_PATH.sub("", ref, count=1) if genai == "google" and _GOOGLE_PATH.match(ref) else ref


class PriceList:
    """The prices of one state of genai-prices' data, with corrections of known errors."""

    def __init__(self, snapshot: data_snapshot.DataSnapshot) -> None:
        self.snapshot = snapshot

    def made(self, now: int) -> int:
        """When the data was made, in microseconds since the epoch; fetched data dates from its fetching.

        For bundled data of an unknown version: the start of the newest price that was in force at `now`.
        """
        if self.snapshot.from_auto_update:
            return int(self.snapshot.timestamp.timestamp() * MICROSECONDS)
        release_date = _DATA_DATES.get(genai_prices.__version__)
        return midnight(release_date) if release_date is not None else newest_price(self.snapshot.providers, now)

    def find(self, provider: str, model: str, *, model_class: str = "", alias: bool = False) -> ListPrice:
        """The price of a model without the user's price file.

        Args:
            provider: The provider as spans name it, '' if unknown.
            model: The model.
            model_class: Name of agno's model class, which the API shows instead of the provider.
            alias: Whether `provider` may also be an id of genai-prices.

        """
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

    def name(self, genai: str, model: str) -> str:
        """The id of this exact model in the price list of one provider; the model itself if it is not there."""
        ref = _without_path(genai, model.strip().lower())
        listed = self.match(genai, ref) if len(ref) <= _LONGEST_ID else None
        return ref if listed is None else listed.id.lower()

    def _listed(self, genai: str, ref: str) -> ListPrice:
        """The price list of one provider."""
        if genai == "openrouter":
            return self._openrouter(ref)
        ref = _without_path(genai, ref)
        arn = _OWN_ARN.match(ref) if genai == "aws" else None
        if arn:
            return _none(f"an {arn[1]} names no model; alias it in the price file")
        return self._exactly(genai, ref) or _none(f"{self._data} has no model {shown(ref)} of {genai}")

    def _exactly(self, genai: str, ref: str) -> ListPrice | None:
        """This exact model in the price list of one provider; None if it is not there."""
        rates = _CORRECTIONS.get((genai, ref))
        if rates is not None:
            return ListPrice(LISTED, f"built-in correction: {genai} {ref}", rates)
        ref = _SPELLINGS.get((genai, ref), ref)
        listed = self.match(genai, ref)
        if listed is None:
            return None
        schedule = Schedule(listed.prices)
        if any(rates.prices for _, _, rates in schedule.dated):
            return ListPrice(LISTED, f"{self._data}: {genai} {listed.id}", schedule)
        if ref.endswith(":free") or (genai == "google" and ref.startswith("gemma-")):
            # Google's API serves Gemma free of charge, where genai-prices does not say otherwise.
            return ListPrice(LISTED, f"{self._data}: {genai} {listed.id} is free", FREE)
        return _none(f"{self._data} names {genai} {listed.id} without a price")

    def match(self, genai: str, ref: str) -> types.ModelInfo | None:
        """The model that genai-prices finds, if it is exactly the model asked for."""
        providers = self.snapshot.providers
        provider = next((provider for provider in providers if provider.id == genai), None)
        listed = provider.find_model(ref, all_providers=providers) if provider else None
        if listed is None or (ref.startswith("ft:") and not listed.id.startswith("ft:")):
            return None  # or the base model's price
        # The library retries with 2025-12-11 in place of 20251211.
        spelled = ref if listed.is_match(ref) else _COMPACT_DATE.sub(r"-\1-\2-\3", ref)
        return listed if spelled == listed.id.lower() or is_strict(listed.match, spelled) else None

    def _openrouter(self, ref: str) -> ListPrice:
        if ref.endswith(":free"):
            return ListPrice(LISTED, "openrouter's :free models cost nothing", FREE)
        plain, online = ref, False
        price = self._exactly("openrouter", plain)
        while price is None and (suffix := _OPENROUTER_SUFFIX.search(plain)):
            plain, online = plain[: suffix.start()], online or suffix[1] == "online"
            price = self._exactly("openrouter", plain)
        if plain.startswith("openrouter/") and price is None:
            return _none("openrouter chooses the model: only a reported cost tells the price")
        if price is None and "/" not in plain and (vendor := vendor_of(plain)):
            price = self._exactly("openrouter", f"{vendor.prefix}/{plain}")
        if price is None:
            price = self._vendor("openrouter", plain)
        if online and price.schedule is not None:
            return ListPrice(ESTIMATED, f"{price.rule}; what :online searches cost is not known", price.schedule)
        return price

    def _vendor(self, who: str, ref: str) -> ListPrice:
        """The vendor's own list price, as an estimate of the price of `who`.

        The prefix of the id names the provider; otherwise the model's name decides on the vendor.
        """
        prefix, slash, rest = ref.partition("/")
        genai = PREFIXES.get(prefix) if slash else None
        if genai == "openrouter":
            price = self._openrouter(rest)
        elif genai == "local":
            price = _local(prefix, rest)
        elif genai is not None:
            price = self._listed(genai, rest)
        else:
            last = ref.rpartition("/")[2]
            vendor = vendor_of(last)
            if vendor is None or not vendor.genai:
                return _none(f"{who}: the id {shown(ref)} does not tell who sells the model")
            price = self._listed(vendor.genai, last)
            if price.schedule is None and last != (dashed := _DOT.sub("-", last)):
                price = self._listed(vendor.genai, dashed)  # grok-4.1-fast is xAI's grok-4-1-fast
        if price.schedule is None:
            return _none(f"{who}: {price.rule}")
        return ListPrice(ESTIMATED, f"{who}, at its vendor's price: {price.rule}", price.schedule)

    @property
    def _data(self) -> str:
        updated = self.snapshot.from_auto_update
        return "genai-prices, updated" if updated else f"genai-prices {genai_prices.__version__}"


def bundled() -> data_snapshot.DataSnapshot:
    """The data inside the installed genai-prices, even if other code in this process updates it."""
    from genai_prices.data import providers  # noqa: PLC0415 - megabytes of it

    return data_snapshot.DataSnapshot(providers=providers, from_auto_update=False)
