"""The user's own prices: a YAML file, validated whole, every mistake with its line.

    prices:
      - {provider: Azure, model: my-gpt4o-deployment, use: azure/gpt-4o}
      - {match: '^acme-', input_mtok: 2.5, output_mtok: 10, cache_read_mtok: 1.25, valid_from: 2026-10-01,
         tiers: [{above: 200000, input_mtok: 5}]}

Which entry holds for a model: one that names the model exactly before a pattern, then one with a provider before one
without, then the latest `valid_from` that is not after the call, then the first in the file. An entry whose
`valid_from` is still to come does not exist yet. Case does not matter, neither in names nor in patterns.

Prices are USD per million tokens in the fields of genai-prices, or USD per token in the keys of LiteLLM. A tier
replaces what it names where more input than `above` is billed (cached tokens count), for all tokens of the call.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import yaml

from exporter.core import times
from exporter.core.document import Problems, RefusedError, Table, compose, kind, quoted, shown
from exporter.core.errors import ConfigError
from exporter.pricing.providers import GENAI_IDS, Kind, clean_provider, route
from exporter.pricing.rates import PRICE_KEYS, Rates, Tiered

T = TypeVar("T")

_BYTES: Final = 1024 * 1024
_DEPTH: Final = 8
_ENTRIES: Final = 1000
_CHAIN: Final = 16
_NAME: Final = 256
_PATTERN: Final = 200
_SEARCHED: Final = 160
_REPEATS: Final = 3
_OPTIONS: Final = 6
_TOKENS: Final = 10**9
_MOST: Final = Decimal(10_000)
_LEAST: Final = Decimal("0.0001")
_KCOUNT: Final = Decimal(100_000)
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
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
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
"""Keys of LiteLLM's price table whose price is for what spans do not count"""


class Alias(NamedTuple):
    """Another model whose price holds: its provider ('' for any), and its id."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}" if self.provider else self.model


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: either `rates` or an alias (`use`). `valid_from` is in microseconds since the epoch.

    Exactly one of `model` (in lower case) and `pattern` is given; `provider` is a provider label, '' for any.
    """

    number: int
    line: int
    provider: str
    model: str | None
    pattern: re.Pattern[str] | None
    valid_from: int | None
    use: Alias | None
    rates: Rates | None

    @property
    def rank(self) -> int:
        """Precedence, the lowest first: exact before pattern, then with a provider before without."""
        return (0 if self.pattern is None else 2) + (0 if self.provider else 1)

    def matches(self, provider: str, model: str) -> bool:
        """Whether it speaks of this model, whatever the time. `provider` is a label, `model` as the span has it."""
        if self.provider and self.provider != provider:
            return False
        if self.pattern is None:
            return self.model == model.lower()
        return len(model) <= _SEARCHED and self.pattern.search(model) is not None

    def __str__(self) -> str:
        what = f"model {self.model}" if self.pattern is None else f"match {self.pattern.pattern}"
        return f"prices[{self.number}] (line {self.line}: {what})"


class PriceFile:
    """The entries of one file; `notes` say, a line each, what of it is passed over."""

    def __init__(self, entries: Iterable[Entry] = (), notes: Iterable[str] = ()) -> None:
        self.entries = tuple(entries)
        self.notes = tuple(notes)
        self._exact: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.model is not None:
                self._exact.setdefault(entry.model, []).append(entry)
        self._patterns = [entry for entry in self.entries if entry.pattern is not None]

    def candidates(self, provider: str, model: str) -> list[Entry]:
        """Every entry that speaks of this model, the one that holds before the others; time is not looked at."""
        found = [
            entry for entry in (*self._exact.get(model.lower(), ()), *self._patterns) if entry.matches(provider, model)
        ]
        found.sort(key=lambda e: (e.rank, -_since(e), e.number))
        return found


def _since(entry: Entry) -> int:
    # A time before the epoch still beats no time at all.
    return -(2**62) if entry.valid_from is None else entry.valid_from


NO_PRICES: Final = PriceFile()


def load(path: Path) -> PriceFile:
    """The prices of this file.

    Raises ConfigError with every problem found (`prices[0].input_mtok: ... (line 3)`), whatever the file holds.
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


# --- Values ---------------------------------------------------------------------------------------------------------


def _provider(text: str) -> str:
    label = clean_provider(text)
    if not label or len(label) > _NAME or not label.isprintable():
        raise RefusedError("must be a provider as agno names it, such as Azure")
    return label


def _model(text: str) -> str:
    if not text.strip() or len(text) > _NAME or not text.isprintable():
        raise RefusedError(f"must be a model id: 1 to {_NAME} printable characters")
    return text.strip().lower()


def _use(text: str) -> Alias:
    text = text.strip()
    provider, slash, model = text.partition("/")
    if not text or (slash and not (provider and model)) or len(text) > _NAME or not text.isprintable():
        raise RefusedError("must be provider/model, such as azure/gpt-4o")
    return Alias(clean_provider(provider), model.lower()) if slash else Alias("", text.lower())


def _pattern(text: str) -> re.Pattern[str]:
    if not text or len(text) > _PATTERN:
        raise RefusedError(f"must be a regular expression of 1 to {_PATTERN} characters")
    try:
        compiled = re.compile(text, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise RefusedError(f"{quoted(text)} is no regular expression: {shown(str(error))}") from None
    _check_speed(text)
    return compiled


def _check_speed(text: str) -> None:
    """Refuse what can take exponential time on a name: a repeat in a repeat, choices in one, many in a row.

    With at most three repeats, on names of at most 160 characters, a search ends within a second; and its result is
    kept. Longer names match no pattern.
    """
    if re.search(r"(?<!\\)(?:\\\\)*\\[1-9]|\(\?(?:P=|\(|<?[=!])", text):
        raise RefusedError(f"{quoted(text)}: back references, conditions and look-around are not allowed")
    plain = re.sub(r"\\.", "x", text, flags=re.DOTALL)
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "x", plain)
    plain = re.sub(r"\(\?(?:P<\w+>|[aiLmsux-]*:|>|#)", "(", plain)
    repeats = options = 0
    groups = [False]
    """by open group: whether it holds a repeat or a choice"""
    closed = False
    """whether a group that does was closed just now"""
    for found in re.finditer(r"\{[0-9]*,?[0-9]*\}|.", plain, re.DOTALL):
        sign = found.group()
        if sign == "(":
            groups.append(False)
        elif sign == ")":
            closed = groups.pop() if len(groups) > 1 else False
            groups[-1] |= closed
            continue
        elif sign in "|?":
            options += sign == "?" or not groups[-1]
            groups[-1] = True
        elif sign in "*+" or (len(sign) > 1 and sign[0] == "{"):
            repeats += 1
            groups[-1] = True
            if closed:
                raise RefusedError(f"{quoted(text)}: a repeat of a repeat or of a choice is not allowed")
        closed = False
    if repeats > _REPEATS or options > _OPTIONS:
        limits = f"at most {_REPEATS} repeats (*, +, {{n}}) and {_OPTIONS} choices (|, ?) are allowed"
        raise RefusedError(f"{quoted(text)}: {limits}")


def _moment(text: str) -> int:
    try:
        return times.parse(text.strip())
    except ValueError:
        raise RefusedError(f"{quoted(text)} is not a date or time such as 2026-10-01 or 2026-10-01T12:00Z") from None
    except OverflowError:
        raise RefusedError(f"{quoted(text)} is not a possible time") from None


def _number(text: str) -> Decimal:
    if text.strip().lower().lstrip("+-.") in {"nan", "inf", "infinity"}:
        raise RefusedError(f"must be a price in USD, not {quoted(text)}")
    if not _NUMBER.fullmatch(text):
        raise RefusedError(f"must be a price in USD such as 2.5, not {quoted(text)}")
    number = Decimal(text.replace("_", ""))
    if number < 0:
        raise RefusedError(f"a price is not negative: {quoted(text)}")
    return abs(number)  # -0 is 0


def _mtok(text: str) -> Decimal:
    price = _number(text)
    if price > _MOST:
        raise RefusedError(f"{quoted(text)} is over {_MOST} USD per million tokens")
    if 0 < price < _LEAST:
        raise RefusedError(f"{quoted(text)} is below {_LEAST} USD per million tokens; is it a price per token?")
    return price


def _per_token(text: str) -> Decimal:
    price = _number(text) * 1_000_000
    if price > _MOST:
        raise RefusedError(f"{quoted(text)} is over {_MOST} USD per million tokens; is it a price per million?")
    if 0 < price < _LEAST:
        raise RefusedError(f"{quoted(text)} is below {_LEAST} USD per million tokens")
    return price


def _kcount(text: str) -> Decimal:
    price = _number(text)
    if price > _KCOUNT:
        raise RefusedError(f"{quoted(text)} is over {_KCOUNT} USD per thousand requests")
    return price


def _tokens(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9_]{0,12}", text) or int(text.replace("_", "")) > _TOKENS:
        raise RefusedError(f"must be a whole number of tokens between 1 and {_TOKENS}, not {quoted(text)}")
    return int(text.replace("_", ""))


def _parser(key: str) -> Callable[[str], Decimal]:
    if key == "requests_kcount":
        return _kcount
    return _mtok if key in PRICE_KEYS else _per_token


# --- Entries --------------------------------------------------------------------------------------------------------


class _Table(Table):
    """A mapping of the price file; `passed_over` are keys of LiteLLM that price nothing that spans count."""

    plain_key = _PLAIN_KEY

    def __init__(self, node: yaml.MappingNode, path: str, known: tuple[str, ...], problems: Problems) -> None:
        self.passed_over: list[str] = []
        super().__init__(node, path, known, problems)

    def takes(self, key: str) -> bool:
        """See Table. LiteLLM names tiers by keys."""
        found = None if "above" in self.known else _ABOVE.fullmatch(key)
        return found is not None and found[1] in _PER_TOKEN

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
            return NO_PRICES
        if not isinstance(node, yaml.SequenceNode):
            table.add("prices", f"must be a list such as [{{model: gpt-4o, use: azure/gpt-4o}}], not {kind(node)}")
            return NO_PRICES
        if len(node.value) > _ENTRIES:
            table.add("prices", f"has {len(node.value)} entries; at most {_ENTRIES} are allowed")
            return NO_PRICES
        entries = [entry for number, item in enumerate(node.value) if (entry := self._entry(number, item)) is not None]
        self._twice(entries)
        file = PriceFile(entries, self.notes)
        self._aliases(file)
        return file

    def _entry(self, number: int, node: yaml.Node) -> Entry | None:
        path = f"prices[{number}]"
        if not isinstance(node, yaml.MappingNode):
            message = f"must be a mapping with model or match, not {kind(node)}"
            self.problems.add(path, message, node.start_mark.line + 1)
            return None
        table = _Table(node, path, _ENTRY, self.problems)
        self._note(table)
        provider = table.parsed("provider", _provider)
        model = table.parsed("model", _model)
        pattern = table.parsed("match", _pattern)
        valid_from = table.parsed("valid_from", _moment)
        use = table.parsed("use", _use)
        if "model" in table.entries and "match" in table.entries:
            table.add("match", "give model or match, not both")
        elif "model" not in table.entries and "match" not in table.entries:
            self.problems.add(path, "needs model (an id) or match (a regular expression)", table.line)
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
        given = [key for key in table.entries if key in _PRICES or _ABOVE.fullmatch(key)]
        if "use" in table.entries:
            for key in (*given, *(("tiers",) if "tiers" in table.entries else ())):
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
            found = _ABOVE.fullmatch(key)
            price = table.parsed(key, _per_token) if found else None
            if found is None or price is None:
                continue
            tier, name = tiers.setdefault(int(found[2]) * 1000, {}), _PER_TOKEN[found[1]]
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
        node = table.entries.get("tiers")
        if node is None:
            return {}
        if not isinstance(node, yaml.SequenceNode):
            table.add("tiers", f"must be a list such as [{{above: 200000, input_mtok: 5}}], not {kind(node)}")
            return {}
        tiers: dict[int, dict[str, Decimal]] = {}
        for i, item in enumerate(node.value):
            path = f"{table.where('tiers')}[{i}]"
            line = item.start_mark.line + 1
            if not isinstance(item, yaml.MappingNode):
                self.problems.add(path, f"must be a mapping with above and prices, not {kind(item)}", line)
                continue
            tier = _Table(item, path, _TIER, self.problems)
            above = tier.parsed("above", _tokens)
            prices = self._prices(tier)
            if "above" not in tier.entries:
                self.problems.add(path, "needs above: the tokens of input beyond which it holds", line)
            elif not any(key in _PRICES for key in tier.entries):
                self.problems.add(path, "names no price", line)
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
            elif entry.use.provider and not targets and not known_provider(entry.use.provider):
                message = f"'{entry.use.provider}' is no provider, and '{entry.use}' no model of this file"
                self.problems.add(where, message, entry.line)
        lines = {entry.number: entry.line for entry in file.entries}
        for number, depth in _depths(edges).items():
            if depth is None:
                self.problems.add(f"prices[{number}].use", "leads in a circle", lines[number])
            elif depth > _CHAIN:
                self.problems.add(f"prices[{number}].use", f"leads through over {_CHAIN} aliases", lines[number])


def known_provider(provider: str) -> bool:
    """Whether an alias may name it: a provider of agno, or an id of genai-prices that one leads to."""
    return provider in GENAI_IDS or route(provider).kind is not Kind.UNKNOWN


def alias_targets(file: PriceFile, entry: Entry) -> list[Entry]:
    """The entries that may price what `entry` is an alias for, the one that holds first.

    An entry that also covers its own target (`{model: gpt-4o, use: openai/gpt-4o}`: at any provider, OpenAI's price)
    is not asked again, unless it says nothing else.
    """
    if entry.use is None:
        return []
    itself = entry.pattern is None and entry.provider == entry.use.provider
    return [found for found in file.candidates(*entry.use) if itself or found is not entry]


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
