"""`agentos-exporter backfill`: the past of an AgentOS, as files that promtool makes blocks of."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter

from exporter import __version__
from exporter.cli.flags import DaemonFlags, chosen, given
from exporter.config import load, read_by
from exporter.core import times
from exporter.core.errors import ConfigError, ExporterError
from exporter.core.logs import complain, complain_of
from exporter.core.model import MICROSECONDS
from exporter.core.text import escaped
from exporter.counting.cashier import Cashier
from exporter.counting.users import UserLabels, labeller
from exporter.metrics.catalog import METRICS

if TYPE_CHECKING:
    from exporter.backfill.period import Period
    from exporter.backfill.reading import Progress
    from exporter.backfill.work import Work
    from exporter.config import AgentOS, Config
    from exporter.ledger.coverage import Coverage

OK: Final = 0
FAILED: Final = 1

_STEPS: Final = {"1m": 60_000, "5m": 300_000}
"""Milliseconds"""
_LABEL: Final = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)=(.*)", re.DOTALL)
_PROGRESS_EVERY: Final = 5.0
"""Seconds between two lines of progress without a terminal"""


def _moment(text: str) -> int:
    try:
        return times.parse(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{escaped(text[:40])!r} is not a date such as 2026-11-01 or 2026-11-01T12:00Z") from None


def _rate(text: str) -> float:
    rate = float(text) if text.isascii() and re.fullmatch(r"\d+(\.\d+)?", text) else math.nan
    if not 0 < rate < math.inf:
        raise ValueError(f"{escaped(text[:40])!r} is not a number of traces a second")
    return rate


def _labels(texts: list[str]) -> list[tuple[str, str]]:
    """Further labels of each series. Raises ConfigError."""
    matches = [_LABEL.fullmatch(text) for text in texts]
    problems = [
        f"--label: {escaped(text[:40])!r} is not a label such as job=agentos-exporter"
        for text, match in zip(texts, matches, strict=True)
        if match is None or match[1].startswith("__")
    ]
    names = [match[1] for match in matches if match is not None]
    metric_labels = {label for metric in METRICS.values() for label in metric.labels} | {"le"}
    problems += [f"--label: {name} is a label of the metrics themselves" for name in names if name in metric_labels]
    problems += [f"--label: {name} is given twice" for name in sorted(set(names)) if names.count(name) > 1]
    if problems:
        raise ConfigError(problems)
    return sorted((match[1], match[2]) for match in matches if match is not None)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BackfillOptions:
    """The period of a backfill and its output; times are in microseconds since the epoch."""

    since: Annotated[int, Parameter(name="--from", metavar="DATE", help="begin, in UTC", converter=read_by(_moment))]
    output: Annotated[str, Parameter(metavar="PATH", help="a file, or with a / at its end a folder: a file a day")]
    config_file: Annotated[str | None, Parameter(name="--config.file", metavar="FILE", help="as of `run`")] = None
    agentos: Annotated[str | None, Parameter(metavar="NAME", help="which AgentOS of the configuration")] = None
    until: Annotated[
        int | None,
        Parameter(
            name="--to",
            metavar="DATE",
            help="end, in UTC; at most where the daemon began",
            converter=read_by(_moment),
        ),
    ] = None
    state: Annotated[str | None, Parameter(metavar="PATH", help="state of the daemon, which is only read")] = None
    step: Annotated[Literal["1m", "5m"], Parameter(help="between two samples")] = "1m"
    rate: Annotated[
        float | None, Parameter(metavar="N", help="most traces a second; default: no limit", converter=read_by(_rate))
    ] = None
    label: Annotated[
        list[str] | None,
        Parameter(metavar="NAME=VALUE", help="a label that Prometheus adds, as job and instance; may be repeated"),
    ] = None


def backfill(options: BackfillOptions) -> int:
    """Write the past of an AgentOS as OpenMetrics, for `promtool tsdb create-blocks-from openmetrics`.

    It ends where the counters of the daemon begin, and goes on where it was killed if it is called again.
    """
    try:
        asyncio.run(_backfill(options))
    except ExporterError as error:
        complain_of(error)
        return FAILED
    except OSError as error:
        complain(f"{error.filename or options.output}: {error.strerror or error}")
        return FAILED
    return OK


async def _backfill(options: BackfillOptions) -> None:
    """Raises ExporterError and OSError."""
    from exporter.backfill.output import Output  # noqa: PLC0415 - see `main`
    from exporter.backfill.work import Work  # noqa: PLC0415
    from exporter.core.logs import configure  # noqa: PLC0415
    from exporter.service.connect import look_at_state  # noqa: PLC0415

    config = load(given(DaemonFlags(config_file=options.config_file, state=options.state)), os.environ)
    configure(config.log_level, config.log_format)
    labels = _labels(options.label or [])
    agentos = chosen(config, options.agentos)
    coverage = await asyncio.to_thread(look_at_state, config.state, agentos.name)
    user_label = _user_label(config, coverage)
    path, by_day = _place(options.output)
    beside = path.with_name(path.name + ".backfill")
    _check_place(path, beside, by_day=by_day)
    period = _period(options, coverage, agentos.name)
    work = await asyncio.to_thread(Work, beside, _plan(options, config, agentos, period))
    with contextlib.closing(work):
        if work.resumed:
            _print(f"goes on with {beside}")
        try:
            await _read(options, config, agentos, period, coverage, work, user_label)
        except BaseException:
            if not work.reached():  # nothing is lost, and the next call may have other arguments
                work.remove()
            raise
        output = Output(work, period, labels, lambda path: _print(f"written: {path}"))
        paths = await asyncio.to_thread(output.write, path, by_day=by_day)
        _summarise(work, paths)
        work.remove()


def _place(output: str) -> tuple[Path, bool]:
    """(the path, whether it is a folder for a file a day)."""
    path = Path(output)
    return path, path.is_dir() or output.endswith(os.sep)


def _check_place(path: Path, beside: Path, *, by_day: bool) -> None:
    """Raises ConfigError if files cannot be written there, or would replace others."""
    if not path.absolute().parent.is_dir():
        raise ConfigError([f"--output: there is no folder {path.absolute().parent}"])
    if by_day and path.exists() and not path.is_dir():
        raise ConfigError([f"--output: {path} is a file, not a folder"])
    if not by_day and path.exists() and not path.is_file():
        raise ConfigError([f"--output: {path} is no regular file"])
    there = sorted(path.glob("*.om")) if by_day else [path]
    # A backfill that was killed while it wrote has its work file still, and writes the same once more.
    if not beside.exists() and any(file.exists() for file in there):
        raise ConfigError([f"--output: {there[0]} is there already; remove it, or name another place"])


def _period(options: BackfillOptions, coverage: Coverage, name: str) -> Period:
    """The period of the backfill, without what the daemon counts already. Raises ConfigError."""
    from exporter.backfill.period import Period  # noqa: PLC0415

    ends = [at for at in (options.until, coverage.since) if at is not None]
    if not ends:
        raise ConfigError([f"--to: is needed: the state does not say since when the daemon counts {name}"])
    if coverage.since is None:
        complain(f"the state knows nothing of {name}: what its daemon counts before --to counts twice", "warning")
    until = min(ends)
    if until > time.time() * MICROSECONDS:
        raise ConfigError(["--to: lies in the future"])
    step = _STEPS[options.step]
    if options.since + step * 1_000 > until:
        ends_by = "where the counters of the daemon begin" if until == coverage.since else "which is --to"
        raise ConfigError([f"--from: must be at least {options.step} before {times.stamp(until)}, {ends_by}"])
    if until != options.until:
        _print(f"ends at {times.stamp(until)}, where the counters of the daemon begin")
    return Period(options.since, until, step)


def _plan(options: BackfillOptions, config: Config, agentos: AgentOS, period: Period) -> dict[str, object]:
    """All that the counted numbers depend on; a backfill that continues must have the same."""
    prices = config.prices.read_bytes() if config.prices is not None else b""
    return {
        "version": __version__,
        "agentos": agentos.name,
        "where": agentos.where,
        "db_ids": agentos.db_ids,
        "since": period.since,
        "until": period.until,
        "step": options.step,
        "limits": repr(config.limits),
        "dropped": repr(config.dropped_labels),
        "users": config.user_labels,
        "prices": hashlib.sha256(prices).hexdigest(),
    }


async def _read(
    options: BackfillOptions,
    config: Config,
    agentos: AgentOS,
    period: Period,
    coverage: Coverage,
    work: Work,
    user_label: Callable[[str], str] | None,
) -> None:
    """Read and count the traces that are not in the work file yet."""
    from exporter.backfill.counting import Counter  # noqa: PLC0415
    from exporter.backfill.reading import Reading  # noqa: PLC0415
    from exporter.metrics.totals import Totals  # noqa: PLC0415
    from exporter.service.connect import make_source  # noqa: PLC0415
    from exporter.service.daemon import SYSTEM_CLOCK  # noqa: PLC0415
    from exporter.service.fleet import settings  # noqa: PLC0415
    from exporter.service.prices import make_pricer  # noqa: PLC0415

    pricer = await asyncio.to_thread(make_pricer, config)
    source = make_source(agentos, settings(config), SYSTEM_CLOCK)
    try:
        cashier = Cashier(pricer, user_label=user_label)
        totals = Totals(config.limits, zero_hold=0, dropped=config.dropped_labels)
        counter = await asyncio.to_thread(Counter, agentos.name, period, work, cashier, totals, coverage)
        with _progress(period) as progress:
            reading = Reading(source, counter, work, SYSTEM_CLOCK, rate=options.rate, progress=progress)
            await reading.run(period)
        await asyncio.to_thread(counter.close_sessions)
    finally:
        await source.aclose()
        await asyncio.to_thread(pricer.close)


def _user_label(config: Config, coverage: Coverage) -> Callable[[str], str] | None:
    """How users are labelled: hashed ids as the daemon hashes them. Raises ConfigError."""
    if config.user_labels is UserLabels.HASHED and coverage.user_key is None:
        raise ConfigError(
            ["labels.user: hashed: the state has no key for it yet; start the daemon once, or say plain or off"]
        )
    return labeller(config.user_labels, coverage.user_key or b"")


@contextlib.contextmanager
def _progress(period: Period) -> Iterator[Callable[[Progress], None]]:
    """Show how far reading is: a bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        with _bar(period) as show:
            yield show
        return
    last = time.monotonic()

    def print_progress(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_EVERY:
            last = time.monotonic()
            _print(f"{progress.traces} traces, until {times.stamp(progress.reached)}")

    yield print_progress


@contextlib.contextmanager
def _bar(period: Period) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("0 traces", total=period.until - period.since)
        yield lambda progress: bar.update(
            task, completed=progress.reached - period.since, description=f"{progress.traces} traces"
        )


def _summarise(work: Work, paths: list[Path]) -> None:
    """Print what was counted, what was not, and the next step."""
    figures = work.figures()
    files = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    _print(f"{figures.get('traces', 0)} traces, {figures.get('spans', 0)} spans, {files}")
    if not figures.get("traces"):
        _print("no trace ended between --from and the end: the files hold zeros at most, and need not be imported")
    if figures.get("hidden"):
        _print(f"{figures['hidden']} spans are announced and not shown: AgentOS lost those above them")
    if figures.get("ignored"):
        _print(f"{figures['ignored']} traces could not be read and are not counted")
    _print(f"next: promtool tsdb create-blocks-from openmetrics {paths[0]} DATA_FOLDER_OF_PROMETHEUS")


def _print(text: str) -> None:
    sys.stderr.write(f"{escaped(text)}\n")
