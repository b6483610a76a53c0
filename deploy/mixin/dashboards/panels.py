"""Panels: a query, how it is shown, and what it means where there is no answer, as Grafana's JSON.

Only what the boards need of Grafana is here; the functions below are the kinds of panels. Which filters a query gets,
which id a panel and which place on the grid, a board works out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from deploy.mixin.dashboards.colors import BLUE, PALETTE, YELLOW, Json, steps

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

UNKNOWN: Final = "unknown: no data"
"""What a panel shows by default when there is nothing."""


@dataclass(frozen=True)
class Query:
    """One PromQL query. `{@}` after a metric becomes the filters of the board's variables that the metric has."""

    expr: str
    legend: str = ""
    instant: bool = False
    table: bool = False
    heatmap: bool = False
    exemplar: bool = False

    def json(self, ref: str, filtered: Callable[[str], str]) -> Json:
        """As a target of a panel; `filtered` puts the board's filters in."""
        target: Json = {
            "refId": ref,
            "datasource": DATASOURCE,
            "expr": filtered(self.expr),
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

    def json(self, number: int, x: int, y: int, filtered: Callable[[str], str]) -> Json:
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
            "targets": [query.json(chr(ord("A") + n), filtered) for n, query in enumerate(self.queries)],
            **({"transformations": list(self.transformations)} if self.transformations else {}),
        }


def sized(*panels: Panel, width: int | None = None, height: int | None = None) -> tuple[Panel, ...]:
    """These panels with another width, height, or both."""
    return tuple(replace(panel, width=width or panel.width, height=height or panel.height) for panel in panels)


# --- Kinds of panels -------------------------------------------------------------------------------------------------


def stat(  # noqa: PLR0913 - what Grafana lets one choose
    title: str,
    description: str,
    query: Query | str,
    *,
    unit: str,
    empty: str = UNKNOWN,
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


def money(title: str, description: str, query: str, *, empty: str = "nothing priced", **more: Any) -> Panel:  # noqa: ANN401 - what `stat` takes
    """Dollars as one number."""
    return stat(title, description, query, unit="currencyUSD", empty=empty, color=YELLOW, **more)


def number(title: str, description: str, query: str, *, empty: str = "none seen", **more: Any) -> Panel:  # noqa: ANN401 - what `stat` takes
    """A count as one number."""
    return stat(title, description, query, unit="locale", empty=empty, decimals=0, **more)


def series(  # noqa: PLR0913 - what Grafana lets one choose
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    empty: str = UNKNOWN,
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
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "axisPlacement": "auto",
        "axisLabel": axis,
        "scaleDistribution": {"type": "log", "log": 10} if log else {"type": "linear"},
        "thresholdsStyle": {"mode": "dashed" if limit_lines else "off"},
    }
    defaults: Json = {"color": color or PALETTE, "custom": custom}
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
        "timeseries", title, description, queries, width, height, unit, empty, defaults, options, tuple(overrides)
    )


def bars(  # noqa: PLR0913 - what Grafana lets one choose
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    empty: str = UNKNOWN,
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
    empty: str = UNKNOWN,
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
        tuple(override for column in columns if column.title and (override := _look(column))),
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
        properties += [{"id": "thresholds", "value": column.colors}, {"id": "color", "value": {"mode": "thresholds"}}]
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
    empty: str = UNKNOWN,
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


def link(title: str, uid: str, *carried: str, **variables: str) -> Json:
    """Data link to another board.

    The shown range, data source, job and AgentOS go with it, and what is chosen in the `carried` variables; `variables`
    sets others.
    """
    along = [name for name in ("datasource", "job", "agentos", *carried) if name not in variables]
    parts = [f"${{{name}:queryparam}}" for name in along]
    parts += [f"var-{name}={text}" for name, text in variables.items()]
    return {"title": title, "url": f"/d/{uid}?{'&'.join(parts)}&${{__url_time_range}}", "targetBlank": False}


def cell(name: str) -> str:
    """The value of another column of the row that was clicked."""
    # Grafana's own encoding leaves & # + alone, and names may have them.
    field = f".{name}" if name.isidentifier() else f'["{name}"]'
    return f"${{__data.fields{field}:percentencode}}"
