"""Pieces of PromQL that rules share: who is told apart, durations, and what must never be said twice differently."""

from __future__ import annotations

import re
from typing import Final

TARGET: Final = ("cluster", "namespace", "job")
"""Labels of the scrape that stay. `instance` and `pod` go: a restarted exporter goes on where it was.

Where a label does not exist it costs nothing.
"""
AGENTOS: Final = (*TARGET, "agentos")
KIND: Final = (*AGENTOS, "span_kind")
ROOT: Final = (*AGENTOS, "root_kind", "root")
MODEL: Final = (*AGENTOS, "provider", "model")
FALLBACK: Final = (*AGENTOS, "from_model", "to_model")
TOOL: Final = (*AGENTOS, "tool")
BUDGET: Final = (*AGENTOS, "budget", "period")
BILL: Final = (*AGENTOS, "vendor")
APPROVAL: Final = (*AGENTOS, "approval_type", "source_type")
SCHEDULE: Final = (*AGENTOS, "schedule")
EVALUATION: Final = (*AGENTOS, "eval_type", "name", "component")

_WIDTH: Final = 140

_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION: Final = re.compile("".join(rf"(?:(?P<{unit}>\d+){unit})?" for unit in _SECONDS))


def seconds(duration: str) -> int:
    """Seconds of a Prometheus duration such as `1h30m`. Raises ValueError for what is none."""
    match = _DURATION.fullmatch(duration)
    if match is None or not duration:
        raise ValueError(f"{duration!r} is no duration such as 30s, 5m, 1h30m or 7d")
    return sum(int(count) * _SECONDS[unit] for unit, count in match.groupdict().items() if count)


def duration(total: int) -> str:
    """The Prometheus duration of a number of seconds, in the fewest units: 5400 is `1h30m`."""
    parts = []
    for unit, size in _SECONDS.items():
        count, total = divmod(total, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def number(value: float) -> str:
    """A number as PromQL reads it, without a needless `.0`."""
    return str(int(value)) if value == int(value) else repr(value)


def bucket(value: float) -> str:
    """The matcher of a bucket: the bound 60 is `60.0` after a scrape, and `60` where Prometheus received OTLP."""
    return f'le=~"{int(value)}|{int(value)}\\\\.0"' if value == int(value) else f'le="{float(value)!r}"'


def by(labels: tuple[str, ...], inner: str, *, how: str = "sum") -> str:
    """`sum by (labels) (inner)`, on a line if it fits."""
    head = f"{how} by ({', '.join(labels)})"
    return f"{head} ({inner})" if len(head) + len(inner) < _WIDTH else f"{head} (\n  {inner}\n)"


def share(part: str, whole: str) -> str:
    """Part of a whole, both with the same labels, as a ratio.

    Where nothing happened there is no ratio, neither 0 nor NaN. Where something happened and the part has no series at
    all, as with errors before the first one, it is 0.
    """
    return f"(\n  {part}\n  or\n  {whole} * 0\n)\n/\n({whole} > 0)"


def unless_past(window: str) -> str:
    """The end of an expression that judges rates: leaves out an AgentOS whose window tells of the past.

    It does while a backlog is read, and until the jump of the counters has left the window (a recorded series can be
    5 minutes old).
    """
    reach = duration(seconds(window) + 300)
    backlog = by(AGENTOS, f"max_over_time(agentos_exporter_catching_up[{reach}])", how="max")
    return f"unless on ({', '.join(AGENTOS)})\n{backlog} == 1"
