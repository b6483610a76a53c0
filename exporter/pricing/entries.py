"""The entries of a price file, and which of them applies to a model.

An entry that names the model exactly comes before a pattern, then one with a provider before one without, then the
latest `valid_from` that is not after the call, then the first in the file. An entry with a `valid_from` in the future
does not apply. Names and patterns ignore case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from exporter.pricing.rates import Rates

_SEARCHED: Final = 160
"""Longest model id, in characters, that a pattern is searched in."""


class Alias(NamedTuple):
    """Another model whose price applies: its provider ('' for any), and its id."""

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
        """Every entry for this model, whatever its time, the one that applies first."""
        entries = [
            entry for entry in (*self._exact.get(model.lower(), ()), *self._patterns) if entry.matches(provider, model)
        ]
        entries.sort(key=lambda e: (e.rank, -_since(e), e.number))
        return entries


def _since(entry: Entry) -> int:
    # A time before the epoch comes before no time at all.
    return -(2**62) if entry.valid_from is None else entry.valid_from


NO_PRICES: Final = PriceFile()


def alias_targets(file: PriceFile, entry: Entry) -> list[Entry]:
    """The entries that may price the target of the alias `entry`, the one that applies first.

    An entry that also covers its own target (`{model: gpt-4o, use: openai/gpt-4o}`: at any provider, OpenAI's price) is
    not asked again, unless it has nothing but the alias.
    """
    if entry.use is None:
        return []
    itself = entry.pattern is None and entry.provider == entry.use.provider
    return [candidate for candidate in file.candidates(*entry.use) if itself or candidate is not entry]
