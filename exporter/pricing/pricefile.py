"""The user's own prices: a YAML file, validated whole, every mistake with its line.

    prices:
      - {provider: Azure, model: my-gpt4o-deployment, use: azure/gpt-4o}
      - {match: '^acme-', input_mtok: 2.5, output_mtok: 10, cache_read_mtok: 1.25, valid_from: 2026-10-01,
         tiers: [{above: 200000, input_mtok: 5}]}

Prices are USD per million tokens in the fields of genai-prices, or USD per token in the keys of LiteLLM. A tier
replaces what it names where more input than `above` is billed (cached tokens count), for all tokens of the call.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import yaml

from exporter.core.document import Problems, Table, compose, kind, shown
from exporter.core.errors import ConfigError
from exporter.pricing.entries import NO_PRICES, Entry, PriceFile, alias_targets
from exporter.pricing.providers import GENAI_IDS, Kind, route
from exporter.pricing.rates import PRICE_KEYS, Rates, Tiered
from exporter.pricing.values import (
    parse_alias,
    parse_kcount,
    parse_model,
    parse_moment,
    parse_mtok,
    parse_pattern,
    parse_per_token,
    parse_provider,
    parse_tokens,
)

_BYTES: Final = 1024 * 1024
_DEPTH: Final = 8
_ENTRIES: Final = 1000
_CHAIN: Final = 16
_PER_TOKEN: Final = {
    "input_cost_per_token": "input_mtok",
    "output_cost_per_token": "output_mtok",
    "cache_read_input_token_cost": "cache_read_mtok",
    "cache_creation_input_token_cost": "cache_write_mtok",
    "output_cost_per_reasoning_token": "output_reasoning_mtok",
}
"""LiteLLM's key (USD per token) → genai-prices' (USD per million tokens)"""
_ABOVE: Final = re.compile(r"(.+)_above_([1-9][0-9]{0,5})k_tokens")
_PRICES: Final = (*PRICE_KEYS, *_PER_TOKEN)
_ENTRY: Final = ("provider", "model", "match", "use", "valid_from", "tiers", *_PRICES)
_TIER: Final = ("above", *(key for key in _PRICES if key != "requests_kcount"))
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,79}")
_UNCOUNTED: Final = re.compile(
    r"(?:cache_|input_|output_)?(?:audio|image|video|text|document|annotated|citation|cache_write_1h|cache_write_5m)\w*"
    r"|\w+_(?:kcount|kpages|hours|mchars)"
)
_LITELLM_FACT: Final = re.compile(
    r"max_\w+|mode|litellm_provider|supports_\w+|supported_\w+|source|deprecation_date|metadata|rpm|tpm|comment"
    r"|tool_use_system_prompt_tokens|output_vector_size|uses_embed_content"
)
"""Keys of LiteLLM's price table that are no prices"""
_LITELLM_PRICE: Final = re.compile(
    r"(?:input|output)_cost_per_\w+|cache_\w+_cost\w*|\w+_cost_per_(?:query|session|1k_calls|gb_per_day)"
)
"""Keys of LiteLLM's price table for what spans do not count"""


def load(path: Path) -> PriceFile:
    """The prices of this file.

    Raises ConfigError with every problem (`prices[0].input_mtok: ... (line 3)`), whatever the file holds.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a possible path"
        raise ConfigError([f"prices: cannot read {shown(str(path), 4096)}: {reason}"]) from None
    return parse(raw)


def parse(raw: bytes) -> PriceFile:
    """The prices of a file with these bytes. Raises ConfigError with every problem found."""
    if len(raw) > _BYTES:
        raise ConfigError(["prices: the file is larger than 1 MiB"])
    problems = Problems()
    file = _Reader(problems).read(compose(raw, deepest=_DEPTH))
    problems.check()
    return file


def _parser(key: str) -> Callable[[str], Decimal]:
    if key == "requests_kcount":
        return parse_kcount
    return parse_mtok if key in PRICE_KEYS else parse_per_token


class _Table(Table):
    """A mapping of the price file; `passed_over` are keys of LiteLLM that price nothing that spans count."""

    plain_key = _PLAIN_KEY

    def __init__(self, node: yaml.MappingNode, path: str, known: tuple[str, ...], problems: Problems) -> None:
        self.passed_over: list[str] = []
        super().__init__(node, path, known, problems)

    def takes(self, key: str) -> bool:
        """See Table. LiteLLM names tiers by keys."""
        match = None if "above" in self.known else _ABOVE.fullmatch(key)
        return match is not None and match[1] in _PER_TOKEN

    def passes_over(self, key: str) -> bool:
        """See Table."""
        if "model" not in self.known or not (_LITELLM_FACT.fullmatch(key) or _LITELLM_PRICE.fullmatch(key)):
            return False
        self.passed_over.append(key)
        return True

    def hint(self, key: str) -> str:
        """See Table."""
        if key == "requests_kcount":
            return "a price per request has no tiers"
        return "spans do not count what it prices" if _UNCOUNTED.fullmatch(key) else super().hint(key)


class _Reader:
    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.notes: list[str] = []

    def read(self, top: yaml.Node | None) -> PriceFile:
        if top is None or kind(top) == "nothing":
            self.problems.add("prices", "is missing; the file is a list of prices under this key", 1)
            return NO_PRICES
        line = top.start_mark.line + 1
        if not isinstance(top, yaml.MappingNode):
            self.problems.add("top level", f"must be a mapping with the key prices, not {kind(top)}", line)
            return NO_PRICES
        table = _Table(top, "", ("prices",), self.problems)
        node = table.entries.get("prices")
        if node is None:
            table.add("prices", "is missing; the file is a list of prices under this key")
        elif isinstance(node, yaml.SequenceNode) and len(node.value) > _ENTRIES:
            table.add("prices", f"has {len(node.value)} entries; at most {_ENTRIES} are allowed")
            return NO_PRICES
        items = table.mappings("prices", "[{model: gpt-4o, use: azure/gpt-4o}]", _ENTRY, "with model or match")
        entries = [entry for number, item in items if (entry := self._entry(number, item)) is not None]
        self._twice(entries)
        file = PriceFile(entries, self.notes)
        self._aliases(file)
        return file

    def _entry(self, number: int, table: _Table) -> Entry | None:
        self._note(table)
        provider = table.parsed("provider", parse_provider)
        model = table.parsed("model", parse_model)
        pattern = table.parsed("match", parse_pattern)
        valid_from = table.parsed("valid_from", parse_moment)
        use = table.parsed("use", parse_alias)
        if "model" in table.entries and "match" in table.entries:
            table.add("match", "give model or match, not both")
        elif "model" not in table.entries and "match" not in table.entries:
            self.problems.add(table.path, "needs model (an id) or match (a regular expression)", table.line)
        rates = self._rates(table)
        refused = any(
            key in table.entries and value is None
            for key, value in (("provider", provider), ("valid_from", valid_from), ("use", use))
        )
        if refused or (model is None) == (pattern is None):
            return None
        return Entry(number, table.line, provider or "", model, pattern, valid_from, use, rates)

    def _note(self, table: _Table) -> None:
        """Say which keys of LiteLLM are passed over."""
        uncounted = [key for key in table.passed_over if _LITELLM_FACT.fullmatch(key) is None]
        for keys, why in (
            ([key for key in table.passed_over if key not in uncounted], "no price"),
            (uncounted, "spans do not count what it prices"),
        ):
            if keys:
                self.notes.append(f"{table.path} (line {table.line}): passed over {', '.join(keys)}: {why}")

    def _rates(self, table: _Table) -> Rates | None:
        price_keys = [key for key in table.entries if key in _PRICES or _ABOVE.fullmatch(key)]
        if "use" in table.entries:
            for key in (*price_keys, *(("tiers",) if "tiers" in table.entries else ())):
                table.add(key, "give use or prices, not both")
            return None
        base = self._prices(table)
        tiers = self._tiers(table)
        self._above(table, tiers)
        names = {_PER_TOKEN.get(key, key) for key in table.entries}
        for key in ("input_mtok", "output_mtok"):
            if key not in names:
                self.problems.add(f"{table.path}.{key}", "is missing; write 0 if it is free", table.line)
        for above, key in ((above, key) for above, tier in sorted(tiers.items()) for key in tier if key not in names):
            message = f"has no price below the tier above {above}; give it outside of tiers too"
            self.problems.add(f"{table.path}.{key}", message, table.line)
        prices = {
            key: Tiered(price, tuple((above, tier[key]) for above, tier in sorted(tiers.items()) if key in tier))
            for key, price in base.items()
        }
        return Rates(prices) if {"input_mtok", "output_mtok"} <= prices.keys() else None

    @staticmethod
    def _above(table: _Table, tiers: dict[int, dict[str, Decimal]]) -> None:
        """Add the tiers that LiteLLM's keys name (`input_cost_per_token_above_200k_tokens`)."""
        for key in table.entries:
            match = _ABOVE.fullmatch(key)
            price = table.parsed(key, parse_per_token) if match else None
            if match is None or price is None:
                continue
            tier, name = tiers.setdefault(int(match[2]) * 1000, {}), _PER_TOKEN[match[1]]
            if name in tier:
                table.add(key, "this tier gives the price already, in another key")
            tier[name] = price

    @staticmethod
    def _prices(table: _Table) -> dict[str, Decimal]:
        """The prices of an entry or a tier, per million tokens."""
        prices: dict[str, Decimal] = {}
        first: dict[str, str] = {}
        for key in table.entries:
            if key not in _PRICES:
                continue
            price = table.parsed(key, _parser(key))
            name = _PER_TOKEN.get(key, key)
            if name in first:
                table.add(key, f"is the same price as {first[name]}; give one of them")
            first.setdefault(name, key)
            if price is not None:
                prices.setdefault(name, price)
        return prices

    def _tiers(self, table: _Table) -> dict[int, dict[str, Decimal]]:
        tiers: dict[int, dict[str, Decimal]] = {}
        for _, tier in table.mappings("tiers", "[{above: 200000, input_mtok: 5}]", _TIER, "with above and prices"):
            above = tier.parsed("above", parse_tokens)
            prices = self._prices(tier)
            if "above" not in tier.entries:
                self.problems.add(tier.path, "needs above: the tokens of input beyond which it holds", tier.line)
            elif not any(key in _PRICES for key in tier.entries):
                self.problems.add(tier.path, "names no price", tier.line)
            if above in tiers:
                tier.add("above", f"there is a tier above {above} already")
            elif above is not None:
                tiers[above] = prices
        return tiers

    def _twice(self, entries: list[Entry]) -> None:
        first: dict[tuple[str, str | None, str | None, int | None], Entry] = {}
        for entry in entries:
            pattern = None if entry.pattern is None else entry.pattern.pattern
            key = (entry.provider, entry.model, pattern, entry.valid_from)
            if key in first:
                message = f"the same model, provider and valid_from as prices[{first[key].number}]"
                self.problems.add(f"prices[{entry.number}]", message, entry.line)
            first.setdefault(key, entry)

    def _aliases(self, file: PriceFile) -> None:
        """Refuse aliases that lead nowhere or in a circle."""
        edges: dict[int, list[Entry]] = {}
        for entry in file.entries:
            if entry.use is None:
                continue
            targets = alias_targets(file, entry)
            edges[entry.number] = [target for target in targets if target.use is not None]
            where = f"prices[{entry.number}].use"
            if not entry.use.provider and not targets:
                message = f"'{entry.use}' is no model of this file; write provider/model, such as azure/gpt-4o"
                self.problems.add(where, message, entry.line)
            elif entry.use.provider and not targets and not _is_provider(entry.use.provider):
                message = f"'{entry.use.provider}' is no provider, and '{entry.use}' no model of this file"
                self.problems.add(where, message, entry.line)
        lines = {entry.number: entry.line for entry in file.entries}
        for number, depth in _depths(edges).items():
            if depth is None:
                self.problems.add(f"prices[{number}].use", "leads in a circle", lines[number])
            elif depth > _CHAIN:
                self.problems.add(f"prices[{number}].use", f"leads through over {_CHAIN} aliases", lines[number])


def _is_provider(provider: str) -> bool:
    """Whether an alias may name this provider: one of agno, or an id of genai-prices that one of them leads to."""
    return provider in GENAI_IDS or route(provider).kind is not Kind.UNKNOWN


def _depths(edges: Mapping[int, list[Entry]]) -> dict[int, int | None]:
    """How many aliases follow each other from each alias on; None where they lead in a circle."""
    depths: dict[int, int | None] = {}
    waiting = {number: {target.number for target in targets} for number, targets in edges.items()}
    users: dict[int, list[int]] = {}
    for number, targets in waiting.items():
        for target in targets:
            users.setdefault(target, []).append(number)
    ready = deque(number for number, targets in waiting.items() if not targets)
    while ready:
        number = ready.popleft()
        depths[number] = 1 + max((depths[target.number] or 0 for target in edges[number]), default=0)
        for user in users.get(number, ()):
            waiting[user].discard(number)
            if not waiting[user]:
                ready.append(user)
    return {number: depths.get(number) for number in edges}
