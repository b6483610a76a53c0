"""Grafana's dashboard JSON, as much of it as the boards need: queries, panels, rows, variables.

A board says what it shows; ids, the 24-column grid and the filters by variable are worked out here. Output follows
schema version 39 (Grafana 11); later versions migrate it when they load it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from deploy.mixin.dashboards.metrics import labels_of

Json = dict[str, Any]

COLUMNS: Final = 24
SCHEMA_VERSION: Final = 39
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
TAG: Final = "agentos"

RED: Final = "red"
ORANGE: Final = "orange"
YELLOW: Final = "yellow"
GREEN: Final = "green"
BLUE: Final = "blue"
PURPLE: Final = "purple"
GREY: Final = "text"

BY_NAME: Final = {"mode": "palette-classic-by-name"}
"""The same name has the same colour on every panel."""


def fixed(color: str) -> Json:
    """One colour for all that a panel shows."""
    return {"mode": "fixed", "fixedColor": color}


def steps(*thresholds: tuple[float | None, str]) -> Json:
    """Thresholds: each colour holds from its value up; the first one has None."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in thresholds]}


@dataclass(frozen=True)
class Query:
    """One PromQL query. `{@}` after a metric becomes the filters of the board's variables that the metric has."""

    expr: str
    legend: str = ""
    instant: bool = False
    table: bool = False
    heatmap: bool = False
    exemplar: bool = False

    def json(self, ref: str, board: Board) -> Json:
        """As a target of a panel."""
        target: Json = {
            "refId": ref,
            "datasource": DATASOURCE,
            "expr": board.filtered(self.expr),
            "legendFormat": self.legend or "__auto",
            "instant": self.instant,
            "range": not self.instant,
        }
        if self.table or self.heatmap:
            target["format"] = "table" if self.table else "heatmap"
        if self.exemplar:
            target["exemplar"] = True
        return target


@dataclass(frozen=True)
class Panel:
    """What one rectangle shows, whatever its type. Made by the functions below."""

    type: str
    title: str
    description: str
    queries: tuple[Query, ...]
    width: int
    height: int
    unit: str
    empty: str
    """what stands there when a query has no answer: unknown is never zero"""
    defaults: Json = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()

    def json(self, number: int, x: int, y: int, board: Board) -> Json:
        """As Grafana's panel with this id at this place."""
        return {
            "id": number,
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {
                "defaults": {"unit": self.unit, "noValue": self.empty, **self.defaults},
                "overrides": list(self.overrides),
            },
            "options": self.options,
            "targets": [query.json(chr(ord("A") + n), board) for n, query in enumerate(self.queries)],
            **({"transformations": list(self.transformations)} if self.transformations else {}),
        }


# --- Kinds of panels -------------------------------------------------------------------------------------------------


def stat(  # noqa: PLR0913 - what Grafana lets one choose
    title: str,
    description: str,
    query: Query | str,
    *,
    unit: str,
    empty: str,
    colors: Json | None = None,
    color: str = "",
    decimals: int | None = None,
    mappings: Sequence[Json] = (),
    spark: bool = False,
    link: Json | None = None,
    width: int = 4,
    height: int = 4,
) -> Panel:
    """One number for a wall: coloured by threshold (`colors`) or always the same (`color`)."""
    if isinstance(query, str):
        query = Query(query, instant=not spark)
    defaults: Json = {
        "color": {"mode": "thresholds"},
        "thresholds": colors or steps((None, color or BLUE)),
        "mappings": list(mappings),
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    if link is not None:
        defaults["links"] = [link]
    options = {
        "colorMode": "value",
        "graphMode": "area" if spark else "none",
        "justifyMode": "center",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "auto",
        "wideLayout": True,
    }
    return Panel("stat", title, description, (query,), width, height, unit, empty, defaults, options)


def series(  # noqa: PLR0913 - what Grafana lets one choose
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    empty: str,
    color: Json | None = None,
    stack: bool = False,
    limit_lines: Json | None = None,
    limits: tuple[float | None, float | None] = (0, None),
    log: bool = False,
    axis: str = "",
    overrides: Iterable[Json] = (),
    sort: str = "Last *",
    calcs: tuple[str, ...] = ("mean", "lastNotNull"),
    legend: str = "bottom",
    decimals: int | None = None,
    width: int = 12,
    height: int = 8,
) -> Panel:
    """Lines over time, or areas on top of each other; the legend is a table, largest first."""
    custom: Json = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 60 if stack else 8,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "axisPlacement": "auto",
        "axisLabel": axis,
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
        "thresholdsStyle": {"mode": "dashed" if limit_lines else "off"},
    }
    defaults: Json = {"color": color or BY_NAME, "custom": custom}
    low, high = limits
    if low is not None and not log:
        defaults["min"] = low
    if high is not None:
        defaults["max"] = high
    if limit_lines is not None:
        defaults["thresholds"] = limit_lines
    if decimals is not None:
        defaults["decimals"] = decimals
    options = {
        "legend": {
            "showLegend": True,
            "displayMode": "table",
            "placement": legend,
            "calcs": list(calcs),
            "sortBy": sort,
            "sortDesc": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(
        "timeseries",
        title,
        description,
        queries,
        width,
        height,
        unit,
        empty,
        defaults,
        options,
        tuple(overrides),
    )


def bars(  # noqa: PLR0913 - what Grafana lets one choose
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    empty: str,
    colors: Json,
    limits: tuple[float | None, float | None] = (0, None),
    decimals: int | None = None,
    width: int = 8,
    height: int = 8,
) -> Panel:
    """One horizontal bar for each series, the largest on top as the query sorts them."""
    defaults: Json = {"color": {"mode": "thresholds"}, "thresholds": colors}
    for key, value in zip(("min", "max"), limits, strict=True):
        if value is not None:
            defaults[key] = value
    if decimals is not None:
        defaults["decimals"] = decimals
    options = {
        "displayMode": "basic",
        "orientation": "horizontal",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
        "minVizHeight": 16,
        "minVizWidth": 8,
        "maxVizHeight": 40,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return Panel("bargauge", title, description, (query,), width, height, unit, empty, defaults, options)


@dataclass(frozen=True)
class Column:
    """A column of a table: a label, or the value of a query (`expr` given)."""

    name: str
    title: str
    expr: str = ""
    unit: str = ""
    colors: Json | None = None
    bar: bool = False
    """draw the value as a bar in its cell"""
    link: Json | None = None
    mappings: tuple[Json, ...] = ()
    decimals: int | None = None
    width: int = 0


def label(name: str, title: str = "", *, link: Json | None = None, width: int = 0) -> Column:
    """A label as a column."""
    return Column(name, title or name.replace("_", " "), link=link, width=width)


def value(title: str, expr: str, unit: str, **more: Any) -> Column:  # noqa: ANN401 - fields of Column
    """A query as a column; without a title it only finds rows."""
    return Column("", title, expr, unit, **more)


def table(
    title: str,
    description: str,
    *columns: Column,
    sort: str,
    empty: str,
    descending: bool = True,
    width: int = 12,
    height: int = 9,
) -> Panel:
    """Instant queries side by side: a row for each set of labels, a column for each label and each query."""
    asked = [column for column in columns if column.expr]
    names = {
        id(column): "Value" if len(asked) == 1 else f"Value #{chr(ord('A') + n)}" for n, column in enumerate(asked)
    }
    named_columns = [(names.get(id(column), column.name), column) for column in columns]
    arrange = {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True} | {name: True for name, column in named_columns if not column.title},
            "indexByName": {name: index for index, (name, _) in enumerate(named_columns)},
            "renameByName": {name: column.title for name, column in named_columns if column.title},
            "includeByName": {},
        },
    }
    return Panel(
        "table",
        title,
        description,
        tuple(Query(column.expr, instant=True, table=True) for column in asked),
        width,
        height,
        "short",
        empty,
        {"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False, "inspect": False}},
        {
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
            "showHeader": True,
            "sortBy": [{"displayName": sort, "desc": descending}],
        },
        tuple(override for column in columns if (override := _look(column))),
        ({"id": "merge", "options": {}}, arrange),
    )


def _look(column: Column) -> Json | None:
    """How one column is to look: unit, colours, bar, link."""
    properties: list[Json] = []
    if column.unit:
        properties.append({"id": "unit", "value": column.unit})
    if column.decimals is not None:
        properties.append({"id": "decimals", "value": column.decimals})
    if column.mappings:
        properties.append({"id": "mappings", "value": list(column.mappings)})
    if column.bar:
        properties += [
            {"id": "custom.cellOptions", "value": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}},
            {"id": "min", "value": 0},
        ]
    elif column.colors:
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    if column.colors:
        properties += [
            {"id": "thresholds", "value": column.colors},
            {"id": "color", "value": {"mode": "thresholds"}},
        ]
    if column.link:
        properties.append({"id": "links", "value": [column.link]})
    if column.width:
        properties.append({"id": "custom.width", "value": column.width})
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties} if properties else None


def heatmap(
    title: str,
    description: str,
    query: str,
    *,
    unit: str,
    empty: str,
    scheme: str = "Oranges",
    width: int = 12,
    height: int = 9,
) -> Panel:
    """Buckets of a histogram over time: the query is the increase of each, by `le`."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": scheme,
            "exponent": 0.5,
            "fill": "dark-orange",
            "reverse": False,
            "scale": "exponential",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    defaults = {"custom": {"hideFrom": {"legend": False, "tooltip": False, "viz": False}}}
    queries = (Query(query, "{{le}}", heatmap=True),)
    return Panel("heatmap", title, description, queries, width, height, unit, empty, defaults, options)


def named(name: str, color: str) -> Json:
    """Override: this series has this colour."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": "color", "value": fixed(color)}],
    }


def words(texts: Mapping[int | float, tuple[str, str]]) -> Json:
    """Value mapping: text and colour for a value."""
    return {
        "type": "value",
        "options": {
            str(number): {"text": text, "color": color, "index": index}
            for index, (number, (text, color)) in enumerate(texts.items())
        },
    }


def link(title: str, uid: str, **variables: str) -> Json:
    """Data link to another board: the shown time range and data source go with it, and these variables."""
    parts = ["${datasource:queryparam}", "${job:queryparam}"]
    parts += [f"var-{name}={text}" for name, text in variables.items()]
    return {"title": title, "url": f"/d/{uid}?{'&'.join(parts)}&${{__url_time_range}}", "targetBlank": False}


def cell(name: str) -> str:
    """The value of another column of the row that was clicked."""
    return f"${{__data.fields.{name}}}" if name.isidentifier() else f'${{__data.fields["{name}"]}}'


# --- Boards ----------------------------------------------------------------------------------------------------------


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

        def matchers(found: re.Match[str]) -> str:
            labels = labels_of(found["metric"])
            chosen = [f'{v.name}=~"${v.name}"' for v in self.variables if v.name in labels]
            more = [found["more"].lstrip(", ")] if found["more"] else []
            inside = ", ".join(chosen + more)
            return f"{found['metric']}{{{inside}}}" if inside else found["metric"]

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
                    placed.append(panel.json(number, x, below, self))
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
