"""Asks two servers of Prometheus what the boards ask: one with a past and a daemon after it, one with past alone.

Both know of the same spans, so a board that shows the seam shows it as a difference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.metrics.catalog import METRICS
from tests.harness import panels
from tests.harness.prometheus import Prometheus
from tests.harness.promql import selectors

_Answer = Mapping[frozenset[tuple[str, str]], float]


def asked(**values: str) -> Iterator[panels.Asked]:
    """Yield the boards' queries of rates and sums that are of spans alone. A session counts only when it is idle."""
    for one in panels.asked(values):
        names = {re.sub("_(bucket|count|sum)$", "", found.name) for found in selectors(one.raw)}
        told = all(name in METRICS and METRICS[name].of_spans for name in names)
        if told and not any(name.startswith("agentos_session_") for name in names):
            yield one


def differing(server: Prometheus, whole: Prometheus, until: float, seconds: int) -> tuple[int, list[str]]:
    """Compare all that boards show of so many seconds; return how many queries had an answer, and what differs.

    A query with a window of its own is left out if that is shorter than a day: it may begin after the seam.
    """
    window = f"{seconds}s"
    answered, found = 0, []
    for one in asked(__range=window, __rate_interval=window, __interval=window, __range_s=str(seconds)):
        if not set(re.findall(r"\[(\w+)", one.expr)) <= {window, "1d"}:
            continue
        have, expected = (_instant(each, one.expr, until) for each in (server, whole))
        answered += bool(expected)
        for key in have.keys() | expected.keys():
            values = have.get(key, 0.0), expected.get(key, 0.0)
            if not math.isclose(*values, rel_tol=0.01, abs_tol=1e-9):
                found.append(f"{one.board}: {one.panel} {one.ref} {sorted(key)}: {values[0]}, not {values[1]}")
    return answered, found


def peaks(server: Prometheus, whole: Prometheus, since: float, until: float) -> tuple[int, list[str]]:
    """Compare the course of all rates; return how many had an answer, and which fall below 0 or are twice as high.

    A ratio and a quantile can be anything where little happens: of these it only tells which fall below 0.
    """
    answered, found = 0, []
    for one in asked(__rate_interval="2m", __interval="1m"):
        if "rate(" not in one.expr:
            continue
        have, expected = (_course(each, one.expr, since, until) for each in (server, whole))
        answered += bool(expected)
        additive = "/" not in one.expr and "histogram_quantile" not in one.expr
        if min(have, default=0) < 0 or (additive and max(have, default=0) > 2 * max(expected, default=0)):
            found.append(
                f"{one.board}: {one.panel} {one.ref}: {min(have)} to {max(have)}, not {max(expected, default=0)}"
            )
    return answered, found


def _instant(server: Prometheus, expr: str, at: float) -> _Answer:
    result: list[Any] = server.ask("query", query=expr, time=f"{at:.3f}")["result"]
    values = {frozenset(one["metric"].items()): float(one["value"][1]) for one in result}
    return {key: value for key, value in values.items() if value and not math.isnan(value)}


def _course(server: Prometheus, expr: str, since: float, until: float) -> list[float]:
    """All values at steps of a minute, of whatever series."""
    answer = server.ask("query_range", query=expr, start=f"{since:.3f}", end=f"{until:.3f}", step="60")
    values = (float(value) for one in answer["result"] for _, value in one["values"])
    return [value for value in values if not math.isnan(value)]
