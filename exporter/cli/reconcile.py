"""`agentos-exporter reconcile`: the ledger's daily sums beside AgentOS's own, or beside a vendor's usage and bill."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from exporter.cli import days
from exporter.cli.flags import DaemonFlags, chosen, given
from exporter.config import load, read_by
from exporter.core.errors import ConfigError, ExporterError
from exporter.core.logs import complain_of, configure
from exporter.core.model import MICROSECONDS
from exporter.core.text import escaped
from exporter.core.times import utc

if TYPE_CHECKING:
    from exporter.config import AgentOS, Config
    from exporter.reconcile.compare import Period, Report
    from exporter.reconcile.ours import Ours

SAME: Final = 0
DIFFERENT: Final = 1
NOT_COMPARED: Final = 2
"""Exit codes, as diff has them."""


def _percent(text: str) -> Decimal:
    if not re.fullmatch(r"\d{1,3}(\.\d{1,6})?%?", text, re.ASCII):
        raise ValueError(f"{escaped(text[:40])!r} is not a percentage such as 0.5")
    return Decimal(text.rstrip("%"))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReconcileOptions:
    """The two sides of a comparison, and its period."""

    first: Annotated[
        dt.date, Parameter(name="--from", metavar="DAY", help="first day, in UTC", converter=read_by(days.parse))
    ]
    last: Annotated[
        dt.date, Parameter(name="--to", metavar="DAY", help="last day, in UTC", converter=read_by(days.parse))
    ]
    config_file: Annotated[str | None, Parameter(name="--config.file", metavar="FILE", help="as of `run`")] = None
    state: Annotated[str | None, Parameter(metavar="PATH", help="state of the daemon, which is only read")] = None
    agentos: Annotated[
        str | None,
        Parameter(metavar="NAME", help="which AgentOS; default with --usage: all of the configuration together"),
    ] = None
    usage: Annotated[
        list[Path] | None,
        Parameter(
            metavar="PATH", help="usage or cost export of a vendor; may be repeated. Without: AgentOS's own figures"
        ),
    ] = None
    vendor: Annotated[
        Literal["openai", "anthropic", "google"] | None, Parameter(help="whose exports; default: their form tells")
    ] = None
    tolerance: Annotated[
        Decimal, Parameter(metavar="PERCENT", help="by how much figures may differ", converter=read_by(_percent))
    ] = Decimal(0)
    same: Annotated[bool, Parameter(name="--all", help="list figures that are the same too")] = False
    output: Annotated[Literal["table", "json"], Parameter(help="for people or for programs")] = "table"


def reconcile(options: ReconcileOptions) -> int:
    """Compare what was counted, day by day, with AgentOS's own daily metrics, or with a vendor's usage and costs.

    Each difference is listed with its reasons, as far as the ledger and the other side tell them. Exit codes: 0 the
    same within the tolerance, 1 different, 2 a day could not be compared.
    """
    try:
        reports = asyncio.run(_reconcile(options))
    except ExporterError as error:
        complain_of(error)
        return NOT_COMPARED
    _print(options, reports)
    codes = {report.code for report in reports}
    return DIFFERENT if DIFFERENT in codes else max(codes, default=NOT_COMPARED)


async def _reconcile(options: ReconcileOptions) -> list[Report]:
    """Raises ExporterError."""
    config = load(given(DaemonFlags(config_file=options.config_file, state=options.state)), os.environ)
    configure(config.log_level, config.log_format)
    period = _period(options)
    if options.usage:
        instances = config.agentos if options.agentos is None else (chosen(config, options.agentos),)
        return await asyncio.to_thread(_with_vendors, config, instances, options, period)
    if options.vendor is not None:
        raise ConfigError(["--vendor: makes no sense without --usage"])
    return [await _with_agentos(config, chosen(config, options.agentos), period)]


def _period(options: ReconcileOptions) -> Period:
    from exporter.reconcile.compare import Period  # noqa: PLC0415 - slow to load

    days.check(options.first, options.last)
    today = utc(int(time.time() * MICROSECONDS)).date()
    return Period(options.first, options.last, today, options.tolerance)


def _ours(config: Config, instances: tuple[AgentOS, ...], period: Period) -> Ours:
    """The daily sums of these AgentOS instances together. Blocks. Raises StateError."""
    from exporter.reconcile.ours import ours  # noqa: PLC0415
    from exporter.service.connect import look_at_days, look_at_state  # noqa: PLC0415

    only = instances[0].name if len(instances) == 1 else None
    days = look_at_days(config.state, only, period.first, period.last)
    names = [instance.name for instance in instances]
    counted = ours(days, names, cache_known=all(instance.databases or instance.enrich_runs for instance in instances))
    coverages = [look_at_state(config.state, name) for name in names]
    return replace(
        counted,
        until=min((coverage.until for coverage in coverages if coverage.until is not None), default=None),
        waiting=sum(coverage.waiting for coverage in coverages),
        hidden=sum(coverage.hidden for coverage in coverages),
        ignored=sum(coverage.ignored for coverage in coverages),
    )


def _with_vendors(
    config: Config, instances: tuple[AgentOS, ...], options: ReconcileOptions, period: Period
) -> list[Report]:
    """Blocks. Raises ExporterError."""
    from exporter.reconcile.exports import vendors  # noqa: PLC0415
    from exporter.reconcile.sides import with_vendor  # noqa: PLC0415
    from exporter.service.prices import make_pricer  # noqa: PLC0415

    statements = vendors.read(options.usage or (), options.vendor)
    counted, pricer = _ours(config, instances, period), make_pricer(config)
    return [with_vendor(counted, statement, pricer, period) for statement in statements]


async def _with_agentos(config: Config, agentos: AgentOS, period: Period) -> Report:
    """Raises ExporterError."""
    from exporter.reconcile.agentos import statement  # noqa: PLC0415
    from exporter.reconcile.sides import with_agentos  # noqa: PLC0415
    from exporter.service.connect import make_source  # noqa: PLC0415
    from exporter.service.daemon import SYSTEM_CLOCK  # noqa: PLC0415
    from exporter.service.fleet import settings  # noqa: PLC0415
    from exporter.sources.database.source import DatabaseSource  # noqa: PLC0415

    counted = await asyncio.to_thread(_ours, config, (agentos,), period)
    source = make_source(agentos, settings(config), SYSTEM_CLOCK)
    try:
        if isinstance(source, DatabaseSource):
            problem = "its own daily metrics are read through its API: give its url, or --usage"
            raise ConfigError([f"agentos {agentos.name}: {problem}"])
        metrics = await source.daily_metrics(period.first, period.last)
    finally:
        await source.aclose()
    return with_agentos(counted, statement(metrics, period.first, period.last), period)


def _print(options: ReconcileOptions, reports: list[Report]) -> None:
    from exporter.cli import reports as shown  # noqa: PLC0415 - rich takes a while to load

    if options.output == "json":
        document = {"reports": [shown.record(report) for report in reports]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    for report in reports:
        shown.draw(report, same=options.same)
