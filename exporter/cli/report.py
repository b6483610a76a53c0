"""`agentos-exporter report`: the cost of a period, from the daily sums of the state."""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from exporter.cli import days
from exporter.cli.flags import DaemonFlags, given
from exporter.config import load, read_by
from exporter.core.errors import ConfigError, ExporterError
from exporter.core.logs import complain, complain_of, configure
from exporter.core.model import MICROSECONDS
from exporter.core.times import utc
from exporter.counting.users import UserLabels

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.ledger.daily import Days
    from exporter.report.columns import Grouping
    from exporter.report.document import Report
    from exporter.report.period import Period

OK: Final = 0
FAILED: Final = 1

_DAYS: Final = 30
_PIPED_WIDTH: Final = 1000
"""Columns of a table without a terminal: nothing is cut off."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The period and the form of a report."""

    first: Annotated[
        dt.date | None,
        Parameter(
            name="--from",
            metavar="DATE",
            help="first day, in UTC; default: 30 days with the last",
            converter=read_by(days.parse),
        ),
    ] = None
    last: Annotated[
        dt.date | None,
        Parameter(name="--to", metavar="DATE", help="last day, in UTC; default: today", converter=read_by(days.parse)),
    ] = None
    config_file: Annotated[str | None, Parameter(name="--config.file", metavar="FILE", help="as of `run`")] = None
    state: Annotated[str | None, Parameter(metavar="PATH", help="state of the daemon, which is only read")] = None
    agentos: Annotated[str | None, Parameter(metavar="NAME", help="which AgentOS; default: all of them together")] = (
        None
    )
    by: Annotated[
        list[str] | None,
        Parameter(
            metavar="KEY",
            help="day, agentos, root, agent, provider, model, token_class, cost_source, user, or the name of a "
            "dimension; may be repeated, or with commas; default: model",
        ),
    ] = None
    output: Annotated[
        Literal["table", "csv", "html", "json"], Parameter(help="for people, spreadsheets, browsers or programs")
    ] = "table"


def report(options: ReportOptions | None = None) -> int:
    """Print what a period cost, by model or by whatever else, from the daily sums of the state.

    No AgentOS is asked, and the daemon may run. What is not known is a dash, and notes say what is missing.
    """
    configure("error")
    options = options or ReportOptions()
    try:
        _print(options.output, _report(options))
    except ExporterError as error:
        complain_of(error)
        return FAILED
    return OK


def _report(options: ReportOptions) -> Report:
    """Raises ExporterError."""
    from exporter.report.document import make_report  # noqa: PLC0415 - see `main`
    from exporter.service.connect import look_at_days  # noqa: PLC0415

    config = load(given(DaemonFlags(config_file=options.config_file, state=options.state)), os.environ)
    period = _period(options)
    groupings = _groupings(options, config)
    _check_state(config)
    days = look_at_days(config.state, options.agentos, period.first, period.last)
    return make_report(days, period, _names(options, config, days), groupings, config.dropped_labels)


def _check_state(config: Config) -> None:
    """Raises ConfigError if there is no state to be read: an empty report would look like no cost."""
    if config.state is None:
        raise ConfigError(["state: memory keeps no daily sums; a report needs a state that lasts"])
    if isinstance(config.state, Path) and not config.state.exists():
        raise ConfigError([f"state: there is no file {config.state}"])


def _period(options: ReportOptions) -> Period:
    """The days that are meant. Raises ConfigError."""
    from exporter.report.period import Period  # noqa: PLC0415

    today = utc(int(time.time() * MICROSECONDS)).date()
    last = options.last or max(today, options.first or today)
    first = options.first or last - dt.timedelta(days=_DAYS - 1)
    if first > today:
        raise ConfigError(["--from: lies in the future"])
    days.check(first, last)
    return Period(first, last, today)


def _groupings(options: ReportOptions, config: Config) -> list[Grouping]:
    """The groups that were asked for, and for a page some more. Raises ConfigError."""
    from exporter.report.columns import grouping  # noqa: PLC0415

    dimensions = [dimension.name for dimension in config.dimensions]
    users = config.user_labels is not UserLabels.OFF
    by = tuple(key for text in options.by or ["model"] for key in text.split(","))
    try:
        asked = grouping(by, dimensions, users=users)
    except ValueError as error:
        raise ConfigError([f"--by: {error}"]) from None
    if options.output != "html":
        return [asked]
    return [
        asked,
        *(page_grouping for page_grouping in _page(dimensions, users=users) if page_grouping.keys != asked.keys),
    ]


def _page(dimensions: Sequence[str], *, users: bool) -> list[Grouping]:
    """The tables of a page."""
    from exporter.report.columns import grouping, spelled  # noqa: PLC0415

    keys = ["model", "agent", "root", *map(spelled, dimensions), *(["user"] if users else [])]
    return [grouping((key,), dimensions, users=users) for key in keys]


def _names(options: ReportOptions, config: Config, days: Days) -> list[str]:
    """The AgentOS instances that the report is about. Raises ConfigError."""
    names = sorted({agentos.name for agentos in config.agentos} | set(days.since))
    if options.agentos is None:
        return names
    if options.agentos not in names:
        raise ConfigError(
            [f"--agentos: neither the configuration nor the state knows it; known are {', '.join(names)}"]
        )
    return [options.agentos]


def _print(output: str, document: Report) -> None:
    """Write the report; notes for which its format has no place go to standard error."""
    if output == "table":
        _draw(document)
        return
    if output == "csv":
        for note in document.notes:
            complain(note, "note")
    sys.stdout.write(_renderer(output)(document))


def _renderer(output: str) -> Callable[[Report], str]:
    if output == "html":
        from exporter.report.page.render import render  # noqa: PLC0415

        return render
    if output == "json":
        from exporter.report.json_document import render as render_json  # noqa: PLC0415

        return render_json
    from exporter.report.csv_rows import render as render_csv  # noqa: PLC0415

    return lambda document: render_csv(document.tables[0])


def _draw(document: Report) -> None:
    from rich.console import Console  # noqa: PLC0415

    from exporter.report.terminal import draw  # noqa: PLC0415

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    draw(Console(highlight=False, width=_PIPED_WIDTH if piped else None), document)
