"""The commands of `agentos-exporter`. Exit codes: 0 done, 1 failed or refused, 2 usage error, 130 interrupted.

The codes of `reconcile` are those of diff: 0 the same, 1 different, 2 usage error or not compared.

Slow imports (agno takes a second, rich and the daemon some time too) are done by the command that needs them.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, CycloptsError, Parameter

from exporter import __version__, revision
from exporter.cli.flags import VARIABLES_HELP, DaemonFlags, given
from exporter.cli.traces.rewrite import rewrite
from exporter.core.errors import ConfigError, ExporterError
from exporter.core.text import escaped
from exporter.demo import Options as DemoOptions

if TYPE_CHECKING:
    from exporter.config import Config

PROGRAM: Final = "agentos-exporter"
INTERRUPTED: Final = 130
_USAGE: Final = 2
_TABLE_WIDTH: Final = 160


def version() -> str:
    """The version as Prometheus's own programs print it; what the build did not say stays empty."""
    return (
        f"agentos_exporter, version {__version__} (branch: , revision: {revision()})\n"
        "  build user:       \n"
        "  build date:       \n"
        f"  python version:   {platform.python_version()}\n"
        f"  platform:         {sysconfig.get_platform()}"
    )


app = App(
    name=PROGRAM,
    help="Prometheus exporter for Agno's AgentOS.",
    help_format="plaintext",
    version=version,
    default_parameter=Parameter(negative=(), allow_repeating=True),  # of a flag that is repeated the last one holds
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command()
app.command("exporter.cli.traces.app:app", name="traces", help="Look at the traces of an AgentOS.")
app.command(
    "exporter.cli.backfill:backfill", name="backfill", help="Write the past of an AgentOS as OpenMetrics, for promtool."
)
app.command("exporter.cli.report:report", name="report", help="Print what a period cost: table, CSV, HTML or JSON.")
app.command("exporter.cli.prices:app", name="prices", help="Say what a model costs and why; check a price file.")
app.command(
    "exporter.cli.reconcile:reconcile",
    name="reconcile",
    help="Compare what was counted with AgentOS's own figures, or with a vendor's bill.",
)
app.command("exporter.cli.state:app", name="state", help="Move the state of a daemon.")
app.command(
    "exporter.cli.series:series",
    name="series",
    help="Estimate how many time series a configuration costs.",
    help_epilogue=VARIABLES_HELP,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line (that of the process by default); returns the exit code, never raises SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode gets escapes, not a traceback
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except CycloptsError as error:
        return _not_understood(str(error), error.command_chain or ())
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough; what is buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - a traceback would show what a library says, secrets and all
        from exporter.core.logs import told  # noqa: PLC0415

        _complain(f"this should not happen, please report it: {told(error)}")
        return 1
    return code


def _main(argv: list[str]) -> int:
    first, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if first == "traces":
        argv = [first, *rewrite(rest)]
    elif first == "--version":
        return print_version()
    elif first.startswith("-") and first not in {"-h", "--help", "--install-completion"}:
        return _not_understood(f"no command; did you mean: {PROGRAM} run {first.partition('=')[0]} ...?")
    code: int | None = app(argv)
    return code or 0


def _not_understood(message: str, chain: Sequence[str] = ()) -> int:
    """Print the mistake in a command line, in one line that leads to the help."""
    program = " ".join((PROGRAM, *chain))
    sys.stderr.write(f"{program}: error: {escaped(message)}\nTry '{program} --help'.\n")
    return _USAGE


def _complain(text: str, kind: str = "error") -> None:
    from exporter.core.logs import complain  # noqa: PLC0415

    complain(text, kind)


# --- The daemon -------------------------------------------------------------------------------------------------------


def _load(flags: DaemonFlags, *, check_prices: bool = True) -> Config:
    from exporter.config import load  # noqa: PLC0415

    return load(given(flags), os.environ, check_prices=check_prices)


@app.command(help_epilogue=VARIABLES_HELP)
def run(flags: DaemonFlags | None = None) -> int:
    """Read AgentOS and serve metrics, until SIGTERM."""
    flags = flags or DaemonFlags()
    try:
        config = _load(flags)
    except ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        return 1
    import structlog  # noqa: PLC0415

    from exporter.core.logs import configure  # noqa: PLC0415

    configure(config.log_level, config.log_format)
    try:
        from exporter.service import daemon  # noqa: PLC0415

        asyncio.run(daemon.run(config, lambda: _load(flags, check_prices=False)))
    except ExporterError as error:
        _complain(str(error))
        return 1
    except Exception:  # noqa: BLE001 - one line in the log, whatever it is
        structlog.get_logger("exporter").exception("crashed")
        return 1
    return 0


@app.command(help_epilogue=VARIABLES_HELP)
def check_config(flags: DaemonFlags | None = None) -> int:
    """Say what a configuration means, or all that is wrong with it."""
    from exporter.cli.describe import describe  # noqa: PLC0415
    from exporter.service.daemon import rehearse  # noqa: PLC0415

    try:
        config = _load(flags or DaemonFlags())
        asyncio.run(rehearse(config))
    except ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        return 1
    for line in describe(config):
        print(line)
    for warning in config.warnings:
        _complain(warning, "warning")
    return 0


# --- The others -------------------------------------------------------------------------------------------------------


@app.command
def demo(options: DemoOptions | None = None) -> int:
    """Start an AgentOS with made-up traffic, and the exporter on it."""
    from exporter import demo as demonstration  # noqa: PLC0415

    return demonstration.run(options or DemoOptions())


@app.command(name="version")
def print_version() -> int:
    """Print the version."""
    print(version())
    return 0


@app.command
def metrics(
    *, form: Annotated[Literal["table", "markdown", "json"], Parameter(name="--format", help="how")] = "table"
) -> int:
    """Print the catalog of metrics."""
    from exporter.metrics import reference  # noqa: PLC0415

    if form == "markdown":
        print(reference.markdown(), end="")
    elif form == "json":
        print(reference.as_json(), end="")
    else:
        _metrics_table(reference.TABLE_HEADER, reference.table_rows())
    return 0


def _metrics_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns, one line a metric, for pipes and wide terminals; else a short entry a metric."""
    import textwrap  # noqa: PLC0415

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None
    if width is not None and width < _TABLE_WIDTH:
        for name, kind, labels, unit, life, meaning in rows:
            facts = ", ".join(fact for fact in (kind, unit, life) if fact)
            print(name)
            for text in (facts, meaning, f"labels: {labels or 'none'}"):
                print(textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    "))
        return
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    for row in (header, *rows):
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        print(line)
