"""Boards: variables, rows and panels on the 24-column grid, as Grafana's dashboard JSON.

A board says what it shows; ids, places and the filters by variable are worked out here. Output follows schema version
39 (Grafana 11); later versions migrate it when they load it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from deploy.mixin.dashboards.colors import PURPLE, RED, Json
from deploy.mixin.dashboards.metrics import labels_of
from deploy.mixin.dashboards.panels import DATASOURCE, Panel

COLUMNS: Final = 24
SCHEMA_VERSION: Final = 39
TAG: Final = "agentos"


@dataclass(frozen=True)
class Variable:
    """A filter of a board: the values of a label."""

    name: str
    title: str
    metric: str
    """whose values of the label are offered; `{@}` becomes the filters of the variables before it"""
    chained_all: bool = False
    """All means only the offered values, not whatever there is"""

    def json(self, board: Board) -> Json:
        """As a templating variable."""
        before = replace(board, variables=board.variables[: board.variables.index(self)])
        query = f"label_values({before.filtered(self.metric)}, {self.name})"
        # `.+` for a label that every series has; `.*` keeps series on which it is empty.
        every = {} if self.chained_all else {"allValue": ".+" if self.name == "job" else ".*"}
        return {
            "type": "query",
            "name": self.name,
            "label": self.title,
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            **every,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "options": [],
            "regex": "",
            "hide": 0,
            "skipUrlSync": False,
        }


@dataclass(frozen=True)
class Row:
    """A headline and the panels below it, from left to right and top to bottom."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


@dataclass(frozen=True)
class Board:
    """A dashboard. Its uid is what links and alerts name: it never changes."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    period: str = "now-6h"
    refresh: str = "1m"

    def filtered(self, expr: str) -> str:
        """The expression with `{@}` and `{@, more}` replaced by matchers on the variables that the metric has."""

        def matchers(matcher: re.Match[str]) -> str:
            labels = labels_of(matcher["metric"])
            chosen = [f'{v.name}=~"${v.name}"' for v in self.variables if v.name in labels]
            more = [matcher["more"].lstrip(", ")] if matcher["more"] else []
            inside = ", ".join(chosen + more)
            return f"{matcher['metric']}{{{inside}}}" if inside else matcher["metric"]

        return re.sub(r"(?P<metric>[a-zA-Z_:][\w:]*)\{@(?P<more>[^}]*)\}", matchers, expr)

    def json(self) -> Json:
        """As Grafana's dashboard."""
        return {
            "uid": self.uid,
            "title": f"AgentOS / {self.title}",
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": self.refresh,
            "time": {"from": self.period, "to": "now"},
            "timezone": "browser",
            "weekStart": "",
            "fiscalYearStartMonth": 0,
            "liveNow": False,
            "timepicker": {},
            "links": [_BOARDS_LINK],
            "annotations": {"list": [_OWN_ANNOTATIONS, *(self._mark(*mark) for mark in _MARKS)]},
            "templating": {"list": [_DATASOURCE_VARIABLE, *(variable.json(self) for variable in self.variables)]},
            "panels": self._panels(),
        }

    def _mark(self, name: str, expr: str, color: str, text: str) -> Json:
        return {
            "name": name,
            "datasource": DATASOURCE,
            "enable": True,
            "hide": False,
            "iconColor": color,
            "expr": self.filtered(expr),
            "titleFormat": name,
            "textFormat": text,
            "step": "60s",
        }

    def _panels(self) -> list[Json]:
        """Rows and panels on the grid. Raises ValueError where a line is not full or not even."""
        panels: list[Json] = []
        number = y = 0
        for row in self.rows:
            number += 1
            head = {
                "id": number,
                "type": "row",
                "title": row.title,
                "collapsed": row.collapsed,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
            y += 1
            placed = []
            # Panels of a collapsed row are placed as if it were open; Grafana moves what follows.
            below = y
            for line in _lines(row.panels):
                x = 0
                for panel in line:
                    number += 1
                    placed.append(panel.json(number, x, below, self.filtered))
                    x += panel.width
                below += line[0].height
            panels.append(head)
            if row.collapsed:
                head["panels"] = placed
            else:
                panels += placed
                y = below
        return panels

    def text(self) -> str:
        """The content of the board's file."""
        return json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n"


def _lines(panels: Iterable[Panel]) -> list[list[Panel]]:
    lines: list[list[Panel]] = []
    room = 0
    for panel in panels:
        if room == 0:
            lines.append([])
            room = COLUMNS
        if panel.width > room or (lines[-1] and lines[-1][0].height != panel.height):
            raise ValueError(f"{panel.title}: {panel.width}x{panel.height} does not fit beside {lines[-1][-1].title}")
        lines[-1].append(panel)
        room -= panel.width
    if room:
        raise ValueError(f"{lines[-1][-1].title}: {room} columns beside it are left empty")
    return lines


_BOARDS_LINK: Final = {
    "type": "dashboards",
    "title": "AgentOS boards",
    "tags": [TAG],
    "asDropdown": True,
    "icon": "external link",
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "tooltip": "",
    "url": "",
}
_DATASOURCE_VARIABLE: Final = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "query": "prometheus",
    "current": {},
    "options": [],
    "regex": "",
    "refresh": 1,
    "multi": False,
    "includeAll": False,
    "hide": 0,
    "skipUrlSync": False,
}
_OWN_ANNOTATIONS: Final = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}
_MARKS: Final = (
    ("AgentOS down", "agentos_up{@} == 0", RED, "{{agentos}}: what happens meanwhile is counted when it is back"),
    (
        "Catching up",
        "agentos_exporter_catching_up{@} == 1",
        PURPLE,
        "{{agentos}}: a backlog is read; rates and costs shown here belong to an earlier time",
    ),
)
