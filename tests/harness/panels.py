"""What the boards in deploy/grafana ask Prometheus, with Grafana's variables replaced as Grafana would.

Reads the JSON files alone: what is shipped, not the program that wrote it.

    python -m tests.harness.panels http://127.0.0.1:9090     asks all of it, and says what has no answer
"""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"

GRAFANA = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h", "__range_s": "3600"}
"""Grafana's own variables on a board that shows the last hour, most of which a young demo did not see."""

EMPTY = {
    ("agentos-overview", "Firing alerts"): "whether one fires is a matter of chance",
    ("agentos-overview", "What fires"): "whether one fires is a matter of chance",
    ("agentos-overview", "Runs in a session"): "a session is observed when it has been idle for 30 minutes",
    ("agentos-overview", "Length of a session"): "a session is observed when it has been idle for 30 minutes",
    ("agentos-overview", "What AgentOS itself counts"): "the demo's AgentOS stores no session ids on traces",
    ("agentos-cost", "Cost of a session"): "a session is observed when it has been idle for 30 minutes",
    ("agentos-cost", "Part of vendors' bills that is counted"): "nobody sends the demo a bill",
    ("agentos-models", "Cost of failed calls per hour"): "a call of the demo that fails reports no tokens",
    ("agentos-operations", "Paused runs"): "the demo is read over its API, which does not tell",
    ("agentos-exporter", "Folded into `other` by the limits"): "the demo stays within all limits",
    ("agentos-exporter", "Who reads what"): "the demo's state is no PostgreSQL: it has no replicas",
    ("agentos-exporter", "Shortened label values"): "no name of the demo is that long",
    ("agentos-exporter", "Pushes per minute, by outcome"): "the demo pushes nothing",
    ("agentos-exporter", "Age of what a target has"): "the demo pushes nothing",
}
"""Panels that are rightly empty in a demo of a few minutes, and why."""

EMPTY_QUERIES = {
    ("agentos-cost", "Cost per hour, by token class", "B"): "no span of the demo reports a cost",
    ("agentos-cost", "Where prices come from", "A"): "no span of the demo reports a cost",
    ("agentos-cost", "Spent in the last hour, and what is usual", "B"): "what is usual takes hours of history",
    ("agentos-tools", "Failed share of spans, and what is usual", "B"): "what is usual takes hours of history",
}
"""Single queries, by refId, of panels that show something else, and why."""


@dataclass(frozen=True)
class Asked:
    """One query of a panel, as it stands and as Prometheus gets it."""

    board: str
    panel: str
    ref: str
    raw: str
    expr: str
    instant: bool
    exemplar: bool


def boards() -> dict[str, dict[str, Any]]:
    """The shipped boards by their uid."""
    read = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))]
    return {board["uid"]: board for board in read}


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels of a board, those of collapsed rows too; not the rows themselves."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def variables(board: Mapping[str, Any]) -> dict[str, str]:
    """Of each variable what All stands for in a matcher."""
    return {
        variable["name"]: variable.get("allValue", ".+")
        for variable in board["templating"]["list"]
        if variable["type"] == "query"
    }


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$name` and `${name}`. Raises KeyError for a variable that has no value."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values[found[1] or found[2]], text)


def asked(values: Mapping[str, str] | None = None) -> Iterator[Asked]:
    """Every query of every panel; `values` replaces what variables stand for."""
    for uid, board in boards().items():
        known = GRAFANA | variables(board) | dict(values or {})
        for panel in panels(board):
            for target in panel["targets"]:
                yield Asked(
                    uid,
                    panel["title"],
                    target["refId"],
                    target["expr"],
                    expand(target["expr"], known),
                    target["instant"],
                    target.get("exemplar", False),
                )


def offered(values: Mapping[str, str] | None = None) -> Iterator[tuple[str, str, str, str]]:
    """Of every variable: its board, its name, the series and the label whose values it offers."""
    for uid, board in boards().items():
        known = GRAFANA | variables(board) | dict(values or {})
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert found, variable["query"]["query"]
                yield uid, variable["name"], expand(found[1], known), found[2]


def marks(values: Mapping[str, str] | None = None) -> Iterator[tuple[str, str, str]]:
    """Of every annotation that asks Prometheus: its board, its name, its query."""
    for uid, board in boards().items():
        known = GRAFANA | variables(board) | dict(values or {})
        for annotation in board["annotations"]["list"]:
            if "expr" in annotation:
                yield uid, annotation["name"], expand(annotation["expr"], known)


def ask(url: str, expr: str) -> list[dict[str, Any]]:
    """What a Prometheus answers to an instant query now. Raises RuntimeError with its words for a bad one."""
    return _get(url, "query", query=expr)["result"]


def label_values(url: str, series: str, label: str) -> list[str]:
    """The values of a label on some series."""
    found: list[str] = _get(url, f"label/{label}/values", **{"match[]": series})
    return found


def _get(url: str, what: str, **parameters: str) -> Any:
    request = f"{url.rstrip('/')}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{parameters}: {error.read().decode()}") from None


def unanswered(url: str) -> dict[tuple[str, str, str], str]:
    """By board, panel and refId the queries that have no answer although they should, and why."""
    found = {}
    for one in asked():
        key = (one.board, one.panel, one.ref)
        try:
            answer = ask(url, one.expr)
        except RuntimeError as error:
            found[key] = str(error)
            continue
        expected = (one.board, one.panel) in EMPTY or key in EMPTY_QUERIES
        if not expected and not any(sample["value"][1] != "NaN" for sample in answer):
            found[key] = f"{'only NaN' if answer else 'nothing'}: {one.expr}"
    for board, name, series, label in offered():
        if not label_values(url, series, label):
            found[board, f"${name}", ""] = f"no values: {series}"
    for board, name, expr in marks():
        ask(url, expr)
        assert board, name
    return found


if __name__ == "__main__":
    problems = unanswered(sys.argv[1])
    for (board, panel, ref), problem in problems.items():
        print(f"{board}: {panel} {ref}: {problem}")
    sys.exit(1 if problems else 0)
