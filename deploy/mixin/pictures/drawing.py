"""Panels as pictures: Grafana's dark theme, its grid, and the few kinds of panels that the boards use."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from deploy.mixin.pictures.asking import Answer, Json, Line
from deploy.mixin.pictures.units import written

WIDTH: Final = 1440
DPI: Final = 100
MARGIN: Final = 16
GAP: Final = 8
CELL: Final = 30
HEAD: Final = 86

CANVAS: Final = "#111217"
PANEL: Final = "#181b1f"
BORDER: Final = "#25272d"
TEXT: Final = "#ccccdc"
DIM: Final = "#8e8fa0"
GRID: Final = "#2a2c33"
COLORS: Final = {
    "red": "#F2495C",
    "dark-red": "#C4162A",
    "dark-orange": "#FA6400",
    "orange": "#FF9830",
    "yellow": "#FADE2A",
    "green": "#73BF69",
    "blue": "#5794F2",
    "purple": "#B877D9",
    "text": TEXT,
    "transparent": "none",
}
PALETTE: Final = (
    "#73BF69",
    "#F2CC0C",
    "#8AB8FF",
    "#FF780A",
    "#F2495C",
    "#5794F2",
    "#B877D9",
    "#705DA0",
    "#37872D",
    "#FADE2A",
    "#447EBC",
    "#C15C17",
    "#890F02",
    "#0A437C",
    "#6D1F62",
    "#584477",
    "#B7DBAB",
    "#F4D598",
    "#70DBED",
    "#F9BA8F",
    "#F29191",
    "#82B5D8",
    "#E5A8E2",
    "#AEA2E0",
)
"""The beginning of Grafana's classic palette."""
_REDUCERS: Final[dict[str, tuple[str, Callable[[list[float]], float]]]] = {
    "lastNotNull": ("Last *", lambda values: values[-1]),
    "mean": ("Mean", lambda values: sum(values) / len(values)),
    "max": ("Max", max),
    "min": ("Min", min),
}
_EVERY: Final = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200)
"""Seconds between labels of the time axis, of which there are at most so many:"""
_LABELS: Final = 6
_SCHEMES: Final = {"Oranges": "YlOrBr_r", "Blues": "Blues_r"}


def picture(board: Json, answers: dict[int, Answer], begin: float, end: float) -> bytes:
    """A PNG of a board; `answers` by the panels' ids, the range in Unix time."""
    mpl.rcParams["font.family"] = "DejaVu Sans"
    height = HEAD + max(_bottom(panel["gridPos"]) for panel in board["panels"]) + MARGIN
    drawn = _Board(height, begin, end)
    drawn.head(board)
    for panel in board["panels"]:
        if panel["type"] == "row":
            drawn.row(panel)
        else:
            drawn.panel(panel, answers[panel["id"]])
    return drawn.png()


def _bottom(place: Json) -> int:
    return int((place["y"] + place["h"]) * (CELL + GAP))


def _width(text: str, size: float) -> float:
    """Of a text in pixels."""
    font = get_font(findfont("DejaVu Sans"))
    font.set_size(100, 72)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 * size / 100


def _cut(text: str, room: float, size: float) -> str:
    if _width(text, size) <= room:
        return text
    while text and _width(text + "…", size) > room:
        text = text[:-1]
    return text + "…"


class _Board:
    def __init__(self, height: int, begin: float, end: float) -> None:
        self._height = height
        self._begin, self._end = begin, end
        self._figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=CANVAS)
        self._page = self._axes(0, 0, WIDTH, height)
        self._page.set_xlim(0, WIDTH)
        self._page.set_ylim(height, 0)
        self._page.axis("off")

    def png(self) -> bytes:
        """The picture, with 256 colours: a third of the bytes, and nobody sees it."""
        buffer = io.BytesIO()
        self._figure.savefig(buffer, format="png", dpi=DPI, facecolor=CANVAS)
        image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small = io.BytesIO()
        image.save(small, format="png", optimize=True)
        return small.getvalue()

    # --- The page ------------------------------------------------------------------------------------------------

    def head(self, board: Json) -> None:
        """Title, range and variables."""
        self._text(MARGIN + 4, 24, board["title"], size=18, weight="bold")
        minutes = round((self._end - self._begin) / 60)
        shown = f"Last {minutes} minutes" if minutes < 120 else f"Last {minutes / 60:g} hours"  # noqa: PLR2004
        self._text(WIDTH - MARGIN, 24, f"{shown}   ·   UTC   ·   every {board['refresh']}", color=DIM, align="right")
        x = MARGIN + 4.0
        for one in board["templating"]["list"]:
            name, chosen = one["label"], "Prometheus" if one["type"] == "datasource" else "All"
            for text, face, color in ((name, CANVAS, DIM), (chosen, PANEL, TEXT)):
                width = _width(text, 12) + 20
                self._box(x, 46, width, 26, face)
                self._text(x + 10, 59, text, size=12, color=color)
                x += width
            x += 10

    def row(self, panel: Json) -> None:
        """A headline."""
        x, y, _, height = self._place(panel["gridPos"])
        closed = panel["collapsed"]
        text = f">  {panel['title']}   ({len(panel['panels'])})" if closed else f"⌄  {panel['title']}"
        self._text(x + 4, y + height / 2, text, size=14, weight="bold")

    def panel(self, panel: Json, answer: Answer) -> None:
        """One panel."""
        x, y, width, height = self._place(panel["gridPos"])
        self._box(x, y, width, height, PANEL)
        self._text(x + 9, y + 16, _cut(panel["title"], width - 18, 13), size=13)
        inside = (x + 9, y + 30, width - 18, height - 38)
        draw = {
            "stat": self._stat,
            "timeseries": self._series,
            "bargauge": self._bars,
            "table": self._table,
            "heatmap": self._heatmap,
        }[panel["type"]]
        if not (answer.rows if panel["type"] == "table" else answer.lines):
            empty = panel["fieldConfig"]["defaults"]["noValue"]
            size = 18 if panel["type"] == "stat" else 13
            self._text(
                x + width / 2, y + height / 2 + 8, _cut(empty, width - 20, size), size=size, color=DIM, align="center"
            )
            return
        draw(panel, answer, *inside)

    def _place(self, place: Json) -> tuple[float, float, float, float]:
        column = (WIDTH - 2 * MARGIN + GAP) / 24
        return (
            MARGIN + place["x"] * column,
            HEAD + place["y"] * (CELL + GAP),
            place["w"] * column - GAP,
            place["h"] * (CELL + GAP) - GAP,
        )

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        rectangle = (x / WIDTH, 1 - (y + height) / self._height, width / WIDTH, height / self._height)
        axes: Axes = self._figure.add_axes(rectangle)
        axes.set_facecolor("none")
        return axes

    def _box(self, x: float, y: float, width: float, height: float, face: str) -> None:
        self._page.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=2",
                facecolor=face,
                edgecolor=BORDER,
                linewidth=1,
            )
        )

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        color: str = TEXT,
        align: str = "left",
        weight: str = "normal",
    ) -> None:
        # Sizes are pixels; matplotlib's are points. A dollar sign would begin a formula.
        self._page.text(
            x,
            y,
            text,
            fontsize=size * 72 / DPI,
            color=color,
            ha=align,
            va="center",
            fontweight=weight,
            parse_math=False,
        )

    # --- Kinds of panels -----------------------------------------------------------------------------------------

    def _stat(self, panel: Json, answer: Answer, x: float, y: float, width: float, height: float) -> None:
        lines = answer.lines
        part = width / len(lines)
        for n, line in enumerate(lines):
            value = _known(line)[-1] if _known(line) else math.nan
            defaults = panel["fieldConfig"]["defaults"]
            mapped = _mapping(value, defaults.get("mappings", ()))
            text, color = mapped or (written(value, defaults["unit"], defaults.get("decimals")), "")
            color = COLORS[color] if color else _threshold(value, defaults["thresholds"])
            name = line.name if len(lines) > 1 else ""
            size = min(height * 0.55, 44.0)
            while size > 10 and _width(text, size) > part - 16:  # noqa: PLR2004 - smaller could not be read
                size -= 1
            middle = x + part * (n + 0.5)
            self._text(
                middle,
                y + height / 2 - (8 if name else 3),
                text,
                size=size,
                color=color,
                align="center",
            )
            if name:
                self._text(middle, y + height - 12, _cut(name, part, 12), color=DIM, align="center")

    def _series(self, panel: Json, answer: Answer, x: float, y: float, width: float, height: float) -> None:
        defaults, custom = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["defaults"]["custom"]
        unit, decimals = defaults["unit"], defaults.get("decimals")
        lines = [line for line in answer.lines if _known(line)]
        colors = {id(line): _color(line, n, panel) for n, line in enumerate(lines)}
        shown = self._legend(panel, lines, colors, x, y, width, height)
        labels = 58
        axes = self._axes(x + labels, y + 4, width - labels - 6, height - shown - 26)
        stacked = custom["stacking"]["mode"] == "normal"
        if stacked and lines:
            # Grafana stacks in the order of the answer; where a series has a gap it adds nothing.
            parts = [[0.0 if math.isnan(value) else value for value in line.values] for line in lines]
            axes.stackplot(lines[0].times, parts, colors=[colors[id(line)] for line in lines], alpha=0.6, linewidth=0)
            top = [0.0] * len(lines[0].times)
            for line, part in zip(lines, parts, strict=True):
                top = [a + b for a, b in zip(top, part, strict=True)]
                axes.plot(line.times, top, color=colors[id(line)], linewidth=1)
            highest = max(top)
        else:
            for line in lines:
                dashed = any(one["id"] == "custom.lineStyle" for one in _properties(line, panel))
                style = (0, (6, 4)) if dashed else "solid"
                axes.plot(line.times, line.values, color=colors[id(line)], linewidth=1.2, linestyle=style)
                if len(lines) <= 3 and not dashed:  # noqa: PLR2004 - more would be mud
                    axes.fill_between(line.times, 0, line.values, color=colors[id(line)], alpha=0.08, linewidth=0)
            highest = max((value for line in lines for value in _known(line)), default=1.0)
        lowest = min((value for line in lines for value in _known(line)), default=0.0)
        low = defaults.get("min", min(0.0, lowest))
        high = defaults.get("max") or (highest * 1.08 if highest > 0 else 1.0)
        if custom["thresholdsStyle"]["mode"] == "dashed":
            for step in defaults["thresholds"]["steps"]:
                # Grafana does not stretch an axis for a threshold.
                if step["value"] is not None and step["value"] <= high:
                    axes.axhline(step["value"], color=COLORS[step["color"]], linestyle=(0, (8, 6)), linewidth=1)
        marks = [(at, value) for at, value in answer.exemplars if low <= value <= high]
        if marks:
            times, values = zip(*marks, strict=True)
            axes.scatter(
                times, values, marker="D", s=9, color="#1F60C4", edgecolors="#8AB8FF", linewidths=0.4, zorder=5
            )
        axes.set_ylim(low, high)
        self._frame(axes)
        least = 1.0 if decimals == 0 or unit == "none" else 0.0
        ticks = _ticks(low, high, max(2, int((height - shown - 26) // 38)), least, 1024 if unit == "bytes" else 1000)
        axes.set_yticks(ticks, [_short(tick, unit) for tick in ticks])

    def _frame(self, axes: Axes) -> None:
        axes.set_xlim(self._begin, self._end)
        every = next((size for size in _EVERY if (self._end - self._begin) / size <= _LABELS), _EVERY[-1])
        first = math.ceil(self._begin / every) * every
        ticks = [first + n * every for n in range(int((self._end - first) // every) + 1)]
        axes.set_xticks(ticks, [datetime.fromtimestamp(tick, UTC).strftime("%H:%M") for tick in ticks])
        axes.tick_params(colors=DIM, labelsize=11 * 72 / DPI, length=0, pad=4)
        axes.grid(visible=True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for text in (*axes.get_yticklabels(), *axes.get_xticklabels()):
            text.set_parse_math(False)

    def _legend(
        self,
        panel: Json,
        lines: Sequence[Line],
        colors: dict[int, str],
        x: float,
        y: float,
        width: float,
        height: float,
    ) -> float:
        """The table below a chart; returns its height."""
        legend = panel["options"]["legend"]
        defaults = panel["fieldConfig"]["defaults"]
        heads = [_REDUCERS[calc] for calc in legend["calcs"]]
        rows = [(line, [reduce(_known(line)) for _, reduce in heads]) for line in lines]
        by = [name for name, _ in heads].index(legend["sortBy"])
        rows.sort(key=lambda row: row[1][by], reverse=legend["sortDesc"])
        each = 19
        fit = max(1, int(height * 0.42 // each) - 1)
        top = y + height - (min(fit, len(rows)) + 1) * each
        column = 82
        self._text(x + 4, top + 10, "Name", size=11, color="#6E9FFF")
        for n, (name, _) in enumerate(heads):
            mark = " ▾" if n == by else ""
            self._text(
                x + width - (len(heads) - 1 - n) * column,
                top + 10,
                name + mark,
                size=11,
                color="#6E9FFF",
                align="right",
            )
        for row, (line, values) in enumerate(rows[:fit], 1):
            middle = top + row * each + 10
            self._page.add_patch(Rectangle((x + 4, middle - 2), 14, 4, color=colors[id(line)], linewidth=0))
            room = width - len(heads) * column - 26
            self._text(x + 24, middle, _cut(line.name or "(none)", room, 12), size=12)
            for n, value in enumerate(values):
                text = written(value, defaults["unit"], defaults.get("decimals"))
                self._text(x + width - (len(heads) - 1 - n) * column, middle, text, size=12, align="right")
        return (min(fit, len(rows)) + 1) * each

    def _bars(self, panel: Json, answer: Answer, x: float, y: float, width: float, height: float) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        lines = answer.lines
        each = min(height / len(lines), 56.0)
        low, high = defaults.get("min", 0), defaults.get("max") or max(line.values[-1] for line in lines)
        for n, line in enumerate(lines):
            top = y + n * each
            value = line.values[-1]
            color = _threshold(value, defaults["thresholds"])
            self._text(x + 2, top + 11, line.name, size=12)
            room = width - 84
            share = min(1.0, max(0.0, (value - low) / ((high - low) or 1)))
            self._page.add_patch(Rectangle((x, top + 21), room, each - 28, color="#22252b", linewidth=0))
            self._page.add_patch(
                Rectangle((x, top + 21), room * share, each - 28, color=color, alpha=0.75, linewidth=0)
            )
            text = written(value, defaults["unit"], defaults.get("decimals"))
            self._text(x + width, top + 21 + (each - 28) / 2, text, size=15, color=color, align="right")

    def _table(self, panel: Json, answer: Answer, x: float, y: float, width: float, height: float) -> None:
        titles = list(answer.rows[0])
        sort = panel["options"]["sortBy"][0]
        looks = {title: _look(title, panel) for title in titles}
        each = 27
        fit = int(height // each) - 1
        rows = answer.rows[:fit]
        texts = [[_cell(row[title], looks[title]) for title in titles] for row in rows]
        wanted = [
            max(_width(title, 12) + (14 if title == sort["displayName"] else 0), *(_width(row[n], 12) for row in texts))
            + 18
            + (90 if looks[title].get("bar") else 0)
            for n, title in enumerate(titles)
        ]
        widths = [want * width / sum(wanted) for want in wanted]
        size = min(12.0, 12 * width / sum(wanted))
        left = x
        for n, title in enumerate(titles):
            number = bool(looks[title].get("unit"))
            at, align = (left + widths[n] - 8, "right") if number else (left + 8, "left")
            mark = (" ↓" if sort["desc"] else " ↑") if title == sort["displayName"] else ""
            self._text(at, y + 13, title + mark, size=size, color="#6E9FFF", align=align)
            left += widths[n]
        for r, (row, written_row) in enumerate(zip(rows, texts, strict=True), 1):
            top = y + r * each
            self._page.plot([x, x + width], [top, top], color=GRID, linewidth=0.8)
            left = x
            for n, title in enumerate(titles):
                look, text = looks[title], written_row[n]
                color = TEXT
                value = row[title]
                if look.get("thresholds") and isinstance(value, float):
                    color = _threshold(value, look["thresholds"])
                if look.get("link") and text:
                    color = "#6E9FFF"
                if look.get("bar") and isinstance(value, float):
                    room = widths[n] - 24 - max(_width(line[n], size) for line in texts)
                    most = max(one[title] for one in answer.rows if one[title] is not None) or 1
                    self._page.add_patch(Rectangle((left + 8, top + 6), room, each - 12, color="#22252b", linewidth=0))
                    share = max(0.0, value / most)
                    self._page.add_patch(
                        Rectangle((left + 8, top + 6), room * share, each - 12, color=color, alpha=0.75, linewidth=0)
                    )
                number = bool(look.get("unit"))
                at, align = (left + widths[n] - 8, "right") if number else (left + 8, "left")
                self._text(
                    at, top + each / 2 + 1, _cut(text, widths[n] - 10, size), size=size, color=color, align=align
                )
                left += widths[n]

    def _heatmap(self, panel: Json, answer: Answer, x: float, y: float, width: float, height: float) -> None:
        unit = panel["options"]["yAxis"]["unit"]
        lines = answer.lines
        used = [n for n, line in enumerate(lines) if any(value > 0 for value in line.values)]
        if not used:
            return
        lines = lines[max(0, used[0] - 1) : used[-1] + 2]
        labels = 58
        axes = self._axes(x + labels, y + 4, width - labels - 6, height - 48)
        cells = [[value if value > 1e-9 else math.nan for value in line.values] for line in lines]  # noqa: PLR2004
        step = lines[0].times[1] - lines[0].times[0]
        edges = [at - step / 2 for at in lines[0].times] + [lines[0].times[-1] + step / 2]
        most = max(value for row in cells for value in row if not math.isnan(value))
        scheme = mpl.colormaps[_SCHEMES[panel["options"]["color"]["scheme"]]]
        axes.pcolormesh(
            edges,
            range(len(lines) + 1),
            [[(value / most) ** 0.5 for value in row] for row in cells],
            cmap=scheme,
            vmin=0,
            vmax=1,
            edgecolors=PANEL,
            linewidth=0.6,
        )
        self._frame(axes)
        axes.grid(visible=False)
        axes.set_ylim(0, len(lines))
        names = ["+Inf" if line.name == "+Inf" else _short(float(line.name), unit) for line in lines]
        axes.set_yticks([n + 1 for n in range(len(lines))], names)
        for text in axes.get_yticklabels():
            text.set_parse_math(False)
        bar = self._axes(x + labels, y + height - 16, 160, 8)
        bar.imshow([[n / 63 for n in range(64)]], aspect="auto", cmap=scheme, vmin=0, vmax=1)
        bar.axis("off")
        self._text(x + labels - 8, y + height - 12, "0", size=11, color=DIM, align="right")
        self._text(x + labels + 168, y + height - 12, written(most, "short", 1), size=11, color=DIM)


# --- What a panel's JSON says ----------------------------------------------------------------------------------------


def _known(line: Line) -> list[float]:
    return [value for value in line.values if not math.isnan(value)]


def _properties(line: Line, panel: Json) -> list[Json]:
    found = []
    for override in panel["fieldConfig"]["overrides"]:
        matcher, wanted = override["matcher"]["id"], override["matcher"]["options"]
        if wanted == line.name or (matcher == "byRegexp" and line.name.endswith(wanted.strip("/$"))):
            found += override["properties"]
    return found


def _color(line: Line, number: int, panel: Json) -> str:
    for one in reversed(_properties(line, panel)):
        if one["id"] == "color":
            return COLORS[one["value"]["fixedColor"]]
    color = panel["fieldConfig"]["defaults"]["color"]
    if color["mode"] in {"fixed", "shades"}:
        # Of the shades only the first is drawn right.
        return COLORS[color["fixedColor"]]
    return PALETTE[number % len(PALETTE)]


def _threshold(value: float, thresholds: Json) -> str:
    color = "text"
    for step in thresholds["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return COLORS[color]


def _mapping(value: float, mappings: Sequence[Json]) -> tuple[str, str] | None:
    for mapping in mappings:
        found = mapping["options"].get(f"{value:g}")
        if found:
            return found["text"], found["color"]
    return None


def _look(title: str, panel: Json) -> dict[str, Any]:
    """The properties of a table's column."""
    look: dict[str, Any] = {}
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == title:
            properties = {one["id"]: one["value"] for one in override["properties"]}
            look = {
                "unit": properties.get("unit"),
                "decimals": properties.get("decimals"),
                "thresholds": properties.get("thresholds"),
                "bar": properties.get("custom.cellOptions", {}).get("type") == "gauge",
                "link": properties.get("links"),
            }
    return look


def _cell(value: Any, look: dict[str, Any]) -> str:  # noqa: ANN401 - a number, a text or nothing
    if value is None:
        return ""
    return value if isinstance(value, str) else written(value, look.get("unit") or "short", look.get("decimals"))


def _short(value: float, unit: str) -> str:
    """A value on an axis: without needless zeros."""
    return re.sub(r"(\.\d*?)0+(?=\D|$)", lambda found: found[1].rstrip("."), written(value, unit))


def _ticks(low: float, high: float, about: int, least: float, thousand: int) -> list[float]:
    """Round values, at least `least` apart."""
    rough = (high - low) / about
    scale = thousand ** max(0, math.floor(math.log(rough, thousand))) if rough >= 1 else 1
    power = 10 ** math.floor(math.log10(rough / scale)) * scale
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    step = max(least, math.ceil(step) if least else step)
    first = math.ceil(low / step)
    return [round((first + n) * step, 12) for n in range(int((high - low) / step) + 1) if (first + n) * step <= high]
