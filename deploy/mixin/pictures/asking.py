"""What the panels of a board get from a Prometheus, as Grafana would ask it with all variables at All."""

from __future__ import annotations

import json
import math
import re
import statistics
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass
class Line:
    """A series over time; a gap is NaN."""

    name: str
    labels: dict[str, str]
    times: list[float]
    values: list[float]


@dataclass
class Answer:
    """What a panel got."""

    lines: list[Line] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """of a table: one for each set of labels, by the columns' titles"""
    exemplars: list[tuple[float, float]] = field(default_factory=list)


class Prometheus:
    """A Prometheus at an address, asked for one range that ends now."""

    def __init__(self, url: str, seconds: int) -> None:
        self._url = url.rstrip("/")
        self.end = time.time()
        self.begin = self.end - seconds
        # As Grafana: never finer than the scrape interval of 15s, and about a point for each pixel of a panel.
        self.step = max(15, math.ceil(seconds / 600 / 15) * 15)
        self._values = {
            "__range": f"{seconds}s",
            "__range_s": str(seconds),
            "__interval": f"{self.step}s",
            "__rate_interval": f"{max(self.step + 15, 60)}s",
        }

    def panel(self, panel: Json, variables: dict[str, str]) -> Answer:
        """What a panel gets."""
        answer = Answer()
        tables = []
        for target in panel["targets"]:
            expr = re.sub(r"\$(\w+)", lambda found: (self._values | variables)[found[1]], target["expr"])
            if target["instant"]:
                samples = self._get("query", query=expr, time=f"{self.end:.3f}")["result"]
                tables.append((target["refId"], [(one["metric"], float(one["value"][1])) for one in samples]))
                answer.lines += [
                    Line(_legend(target, one["metric"]), one["metric"], [self.end], [float(one["value"][1])])
                    for one in samples
                ]
                continue
            answer.lines += self._lines(target, expr)
            if target.get("exemplar"):
                answer.exemplars += self._exemplars(expr)
        if panel["type"] == "table":
            answer.rows = _arranged(tables, panel)
        if panel["type"] == "heatmap":
            answer.lines = _apart(answer.lines)
        return answer

    def _lines(self, target: Json, expr: str) -> list[Line]:
        begin = float(math.ceil(self.begin / self.step) * self.step)
        times = [begin + n * self.step for n in range(int((self.end - begin) // self.step) + 1)]
        found = self._get("query_range", query=expr, start=str(times[0]), end=str(times[-1]), step=str(self.step))
        lines = []
        for one in found["result"]:
            values = {float(at): float(value) for at, value in one["values"]}
            lines.append(
                Line(_legend(target, one["metric"]), one["metric"], times, [values.get(at, math.nan) for at in times])
            )
        return lines

    def _exemplars(self, expr: str) -> list[tuple[float, float]]:
        found = self._get("query_exemplars", query=expr, start=f"{self.begin:.3f}", end=f"{self.end:.3f}")
        marks = [(float(one["timestamp"]), float(one["value"])) for series in found for one in series["exemplars"]]
        return _thinned(marks, self.step)

    def _get(self, what: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON of several shapes
        request = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the address that was asked for
            return json.load(answer)["data"]


def everything(board: Json) -> dict[str, str]:
    """The board's variables, all of them at All."""
    return {one["name"]: one.get("allValue", ".+") for one in board["templating"]["list"] if one["type"] == "query"}


def _legend(target: Json, labels: dict[str, str]) -> str:
    legend = target["legendFormat"]
    if legend == "__auto":
        return ", ".join(labels.values()) or "Value"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip()


def _arranged(tables: list[tuple[str, list[tuple[dict[str, str], float]]]], panel: Json) -> list[dict[str, Any]]:
    """Merge tables by their labels, then name, order and sort as the panel says: Grafana's merge and organize."""
    rows: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for ref, samples in tables:
        name = "Value" if len(tables) == 1 else f"Value #{ref}"
        for labels, value in samples:
            rows.setdefault(tuple(sorted(labels.items())), dict(labels))[name] = value
    options = next(one["options"] for one in panel["transformations"] if one["id"] == "organize")
    order = sorted(options["indexByName"], key=options["indexByName"].__getitem__)
    titles = [(name, options["renameByName"][name]) for name in order if not options["excludeByName"].get(name)]
    made = [{title: row.get(name) for name, title in titles} for row in rows.values()]
    key = panel["options"]["sortBy"][0]
    made.sort(key=lambda row: _rank(row.get(key["displayName"])), reverse=key["desc"])
    return made


def _thinned(marks: list[tuple[float, float]], step: int) -> list[tuple[float, float]]:
    """What Grafana shows of many exemplars: of each step the highest, and below it those two deviations apart."""
    if len(marks) < 2:  # noqa: PLR2004 - one deviates from nothing
        return marks
    apart = 2 * statistics.stdev(value for _, value in marks)
    kept: dict[int, list[tuple[float, float]]] = {}
    for at, value in sorted(marks, key=lambda mark: -mark[1]):
        chosen = kept.setdefault(int(at // step), [])
        if not chosen or chosen[-1][1] - value > apart:
            chosen.append((at, value))
    return [mark for chosen in kept.values() for mark in chosen]


def _rank(value: Any) -> tuple[int, Any]:  # noqa: ANN401 - numbers and texts
    return (0, 0) if value is None else (1, value)


def _apart(lines: list[Line]) -> list[Line]:
    """Cumulative buckets become what fell into each."""
    lines = sorted(lines, key=lambda line: float(line.labels["le"]))
    below = [0.0] * len(lines[0].values) if lines else []
    made = []
    for line in lines:
        made.append(
            Line(line.labels["le"], line.labels, line.times, [a - b for a, b in zip(line.values, below, strict=True)])
        )
        below = line.values
    return made
