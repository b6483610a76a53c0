"""The daily sums of the ledger in the form of a comparison: a tally for each day and model."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.metrics.catalog import METRICS
from exporter.pricing.rates import ESTIMATED
from exporter.pricing.tokens import habits_of
from exporter.reconcile.figures import Figures, Key, Measure

if TYPE_CHECKING:
    from exporter.ledger.daily import Days

_CALLS: Final = "agentos_llm_calls_total"
_ERRORS: Final = "agentos_llm_call_errors_total"
_MUTE: Final = "agentos_llm_calls_without_usage_total"
_TOKENS: Final = "agentos_llm_tokens_total"
_UNPRICED: Final = "agentos_llm_unpriced_tokens_total"
_COST: Final = "agentos_llm_cost_usd_total"
_RUNS: Final = "agentos_runs_total"
_CACHED: Final = {"cache_read", "cache_write"}


@dataclass(slots=True)
class Tally:
    """The ledger's sums of one day and model.

    Attributes:
        runs: Runs that users started.
        calls: LLM calls.
        failed: Those of them that failed.
        without_usage: Those of them that report no tokens, failed ones too.
        unpriced: Tokens without a price.
        tokens: Tokens by class; a class that no call reports is absent.
        costs: Money by source of the price.
        prompt: Prompt tokens as agno has them.
        completion: Completion tokens, likewise.

    """

    runs: int = 0
    calls: int = 0
    failed: int = 0
    without_usage: int = 0
    unpriced: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    costs: Counter[str] = field(default_factory=Counter)
    prompt: int = 0
    completion: int = 0

    @property
    def estimated(self) -> int:
        """Money by prices that may not be those of the bill."""
        return self.costs[ESTIMATED]

    def join(self, other: Tally) -> None:
        """Add another one."""
        self.runs += other.runs
        self.calls += other.calls
        self.failed += other.failed
        self.without_usage += other.without_usage
        self.unpriced += other.unpriced
        _join(self.tokens, other.tokens)
        _join(self.costs, other.costs)
        self.prompt += other.prompt
        self.completion += other.completion

    def figures(self, *, cache_known: bool) -> Figures:
        """Its figures; without calls all are 0. `cache_known`: a class that is absent has no tokens."""
        figures = {
            Measure.RUNS: self.runs,
            Measure.CALLS: self.calls,
            Measure.PROMPT: self.prompt,
            Measure.COMPLETION: self.completion,
        }
        if self.tokens or not self.calls:
            figures[Measure.INPUT] = self.tokens["input"]
            figures[Measure.OUTPUT] = self.tokens["output"] + self.tokens["reasoning"]
            for measure, token_class in ((Measure.CACHE_READ, "cache_read"), (Measure.CACHE_WRITE, "cache_write")):
                if cache_known or token_class in self.tokens or not self.calls:
                    figures[measure] = self.tokens[token_class]
        if self.costs or not self.calls:
            figures[Measure.COST] = self.costs.total()
        return figures

    def add(self, metric: str, labels: Mapping[str, str], value: int) -> None:
        """Add a daily sum.

        Args:
            metric: Name of the counter.
            labels: Its labels, by name.
            value: The sum, in storage units.

        """
        if metric == _RUNS:
            self.runs += value
        elif metric == _CALLS:
            self.calls += value
        elif metric == _ERRORS:
            self.failed += value
        elif metric == _MUTE:
            self.without_usage += value
        elif metric == _UNPRICED:
            self.unpriced += value
        elif metric == _COST:
            self.costs[labels["cost_source"]] += value
        elif metric == _TOKENS:
            self._add_tokens(labels["provider"], labels["token_class"], value)

    def _add_tokens(self, provider: str, token_class: str, value: int) -> None:
        self.tokens[token_class] += value
        habits = habits_of(provider)
        if token_class in {"input"} | (set() if habits.without_cache else _CACHED):
            self.prompt += value
        elif token_class in {"output"} | (set() if habits.without_reasoning else {"reasoning"}):
            self.completion += value


def _join(sums: Counter[str], more: Mapping[str, int]) -> None:
    for key, value in more.items():  # Counter.update would do, and += drops what is 0
        sums[key] += value


@dataclass(frozen=True, slots=True)
class Ours:
    """The ledger's figures of one AgentOS, or of several together.

    Attributes:
        since: From when its sums are complete, in microseconds; None where it never read one of them.
        tallies: By day, provider and model.
        cache_known: Whether cached tokens are told apart.
        until: What ended before was read, in microseconds; None where that is not known.
        waiting: Calls whose tokens and cost are not counted yet, of whatever day.
        hidden: Spans that AgentOS never showed, likewise.
        ignored: Traces that were not counted, likewise.

    """

    since: int | None
    tallies: Mapping[tuple[dt.date, str, str], Tally]
    cache_known: bool = True
    until: int | None = None
    waiting: int = 0
    hidden: int = 0
    ignored: int = 0

    def grouped(self, name: Callable[[str, str], str | None]) -> dict[Key, Tally]:
        """Tallies by day and name; `name` gets provider and model, and returns None for those to be left out."""
        grouped: dict[Key, Tally] = {}
        for (day, provider, model), tally in self.tallies.items():
            if (canonical := name(provider, model)) is not None:
                grouped.setdefault((day, canonical), Tally()).join(tally)
        return grouped


def ours(days: Days, agentos: Iterable[str], *, cache_known: bool) -> Ours:
    """The figures of some AgentOS instances together, from daily sums.

    Args:
        days: The daily sums.
        agentos: Names of the instances.
        cache_known: Whether cached tokens of all of them are known.

    """
    names = set(agentos)
    tallies: dict[tuple[dt.date, str, str], Tally] = {}
    for row in days.rows:
        if row.agentos in names and row.metric in _METRICS:
            labels = dict(zip(METRICS[row.metric].labels, row.labels, strict=True))
            key = (row.day, labels.get("provider", ""), labels.get("model", ""))
            tallies.setdefault(key, Tally()).add(row.metric, labels, row.value)
    since = [days.since.get(name) for name in names]
    moments = [at for at in since if at is not None]
    return Ours(max(moments) if moments and len(moments) == len(since) else None, tallies, cache_known)


_METRICS: Final = frozenset({_CALLS, _ERRORS, _MUTE, _TOKENS, _UNPRICED, _COST, _RUNS})
