"""What may be asked of daily sums: the keys to group them by, and the figures that a group has then."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from exporter.metrics.catalog import METRICS
from exporter.pricing.money import USD

COST: Final = "agentos_llm_cost_usd_total"
TOKENS: Final = "agentos_llm_tokens_total"
UNPRICED: Final = "agentos_llm_unpriced_tokens_total"
WITHOUT_USAGE: Final = "agentos_llm_calls_without_usage_total"

DAY: Final = "day"
USER: Final = "user"
KEYS: Final = (DAY, "agentos", "root", "agent", "provider", "model", "token_class", "cost_source")
"""Keys of figures by call and by run."""
_DIMENSION_PREFIX: Final = "dimension."


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of a group.

    Attributes:
        name: Its name for programs.
        title: Its name for people; '' where only programs get it.
        metric: The counter that it sums up.
        classes: The token classes that it sums up; empty for all.
        beside: The column of the whole of which this one is a part: a group that has the whole and nothing of this
            part has 0 of it, not an unknown number.

    """

    name: str
    title: str
    metric: str
    classes: frozenset[str] = frozenset()
    beside: str = ""

    @property
    def money(self) -> bool:
        """Whether it is in units of 10**-18 USD."""
        return METRICS[self.metric].unit == USD


_OF_CALLS: Final = (
    Column("cost_usd", "cost USD", COST),
    Column("tokens", "tokens", TOKENS),
    Column("input_tokens", "in", TOKENS, frozenset({"input"})),
    Column("cached_tokens", "cached", TOKENS, frozenset({"cache_read", "cache_write"})),
    Column("output_tokens", "out", TOKENS, frozenset({"output", "reasoning"})),
    Column("unpriced_tokens", "", UNPRICED, beside="tokens"),
    Column("calls", "calls", "agentos_llm_calls_total"),
    Column("call_errors", "errors", "agentos_llm_call_errors_total", beside="calls"),
    Column("calls_without_usage", "", WITHOUT_USAGE, beside="calls"),
    Column("tool_calls", "", "agentos_tool_calls_total"),
    Column("cache_savings_usd", "", "agentos_llm_cache_savings_usd_total"),
    Column("runs", "runs", "agentos_runs_total"),
    Column("run_errors", "failed runs", "agentos_run_errors_total", beside="runs"),
)
_OF_DIMENSIONS: Final = (
    Column("cost_usd", "cost USD", "agentos_dimension_cost_usd_total"),
    Column("tokens", "tokens", "agentos_dimension_tokens_total"),
    Column("runs", "runs", "agentos_dimension_runs_total"),
    Column("run_errors", "failed runs", "agentos_dimension_run_errors_total", beside="runs"),
)
_OF_USERS: Final = (
    Column("cost_usd", "cost USD", "agentos_user_cost_usd_total"),
    Column("tokens", "tokens", "agentos_user_tokens_total"),
)


@dataclass(frozen=True, slots=True)
class Grouping:
    """By what sums are grouped.

    Attributes:
        keys: `day`, labels, or the name of a dimension, in the order of the output. Without any, all is one group.
        columns: The figures that counters with all of these labels tell.
        dimension: The dimension among the keys; '' for none.

    """

    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    dimension: str = ""

    def labels_of(self, metric: str) -> tuple[str, ...]:
        """The labels of a counter for the keys; the day stays `day`."""
        if not self.dimension:
            return self.keys
        names = METRICS[metric].labels
        # A dimension may be named like a label, such as `model`.
        return tuple("value" if key == self.dimension and key not in names else key for key in self.keys)


def whole() -> Grouping:
    """All that is counted by call and by run, as one group."""
    return Grouping((), _OF_CALLS)


def grouping(by: Sequence[str], dimensions: Collection[str], *, users: bool) -> Grouping:
    """How sums are grouped by these keys.

    Args:
        by: The keys.
        dimensions: Names of the configured dimensions; one that is named like a key is spelled `dimension.NAME`.
        users: Whether users are counted.

    Raises:
        ValueError: with what is wrong: an unknown key, one that is given twice, or some that no counter has together.

    """
    names = tuple(map(spelled, dimensions))
    known_keys = (*KEYS, *((USER,) if users else ()), *names)
    for key in by:
        if key == USER and not users:
            raise ValueError("users are not counted: labels.user is off")
        if key not in known_keys:
            raise ValueError(f"{key!r} is nothing to group by; known are {', '.join(known_keys)}")
        if by.count(key) > 1:
            raise ValueError(f"{key} is given twice")
    keys, chosen = tuple(by), [key for key in by if key in names]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} are dimensions, of which one at a time can be asked for")
    offered = _OF_DIMENSIONS if chosen else _OF_USERS if USER in keys else _OF_CALLS
    labels = {key for key in keys if key != DAY and key not in chosen}
    columns = tuple(column for column in offered if labels <= _dividing_labels(column))
    if not columns:
        raise ValueError(f"no counter has {' and '.join(keys)} together; see docs/report.md")
    return Grouping(keys, columns, chosen[0] if chosen else "")


def spelled(dimension: str) -> str:
    """How a dimension is spelled among the keys."""
    return _DIMENSION_PREFIX + dimension if dimension in (*KEYS, USER) else dimension


def dimension_name(key: str) -> str:
    """The name of the dimension for a key."""
    return key.removeprefix(_DIMENSION_PREFIX)


def _dividing_labels(column: Column) -> frozenset[str]:
    """The labels of a column's counter by which it can be divided; what sums up some classes cannot be, by class."""
    labels = frozenset(METRICS[column.metric].labels)
    return labels - {"token_class"} if column.classes else labels
