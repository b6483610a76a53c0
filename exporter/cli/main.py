"""The commands of `agentos-exporter`. Exit codes: 0 done, 1 failed or refused, 2 not understood, 130 interrupted.

What is slow to import (agno takes a second, rich and the daemon their part) is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from exporter import __version__, revision
from exporter.core.errors import ConfigError, ExporterError
from exporter.core.text import escaped

if TYPE_CHECKING:
    from exporter.config import AgentOS, Config, Database
    from exporter.counting.budgets import Budget

PROGRAM: Final = "agentos-exporter"
REFUSED: Final = ("backfill",)
"""Commands of the design that this version does not have."""
INTERRUPTED: Final = 130
_USAGE: Final = 2
_TABLE_WIDTH: Final = 160

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line (that of the process by default); returns the exit code, never raises SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode gets escapes, not a traceback
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv), os.environ)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: --help, --version, and what it does not understand
        return stop.code if isinstance(stop.code, int) else _USAGE
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


def _main(argv: list[str], environ: Mapping[str, str]) -> int:
    parser = _parser()
    if not argv:
        parser.print_help()
        return 0
    first, *rest = argv
    if first in REFUSED:
        parser.error(f"{first}: not built in this version ({__version__})")
    if first == "traces":
        from exporter.cli.traces import rewrite  # noqa: PLC0415 - with the modules that traces need

        argv = [first, *rewrite(rest)]
    elif first.startswith("-") and first not in {"-h", "--help", "--version"}:
        parser.error(f"no command; did you mean: {PROGRAM} run {first.partition('=')[0]} ...?")
    options = _parser(first).parse_args(argv)
    command: Command = options.command
    return command(options, environ)


class _Parser(argparse.ArgumentParser):
    """Flags are spelled out in full, and a mistake is one line that leads to the help."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of argparse
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(_USAGE, f"{self.prog}: error: {escaped(message)}\nTry '{self.prog} --help'.\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class _PrintVersion(argparse.Action):
    """argparse's own would run the lines together."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version())
        parser.exit()


def _parser(command: str = "") -> argparse.ArgumentParser:
    """The parser; the flags of `demo` and `traces` are there only when it is this command that was given."""
    parser = _Parser(
        prog=PROGRAM,
        formatter_class=_Formatter,
        description="Prometheus exporter for Agno's AgentOS.",
        epilog=f"{PROGRAM} COMMAND --help tells the flags of a command.",
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)

    def add(name: str, function: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(command=function)
        return added

    _daemon_flags(add("run", _run, "read AgentOS and serve metrics, until SIGTERM"))
    _daemon_flags(add("check-config", _check_config, "say what a configuration means, or all that is wrong with it"))
    demo = add("demo", _demo, "start an AgentOS with made-up traffic and the exporter on it")
    if command == "demo":
        from exporter import demo as demonstration  # noqa: PLC0415 - a package of its own

        demonstration.add_arguments(demo)
    traces = add("traces", _traces, "look at the traces of an AgentOS: list, show, sessions")
    prices = add("prices", _prices, "say what a model costs and why, check a price file")
    if command == "prices":
        from exporter.cli import prices as prices_cli  # noqa: PLC0415

        prices_cli.add_arguments(prices)
    if command == "traces":
        from exporter.cli import traces as traces_cli  # noqa: PLC0415

        traces_cli.add_arguments(traces)
    metrics = add("metrics", _metrics, "print the catalog of metrics")
    metrics.add_argument("--format", choices=("table", "markdown", "json"), default="table")
    add("version", _version, "print the version")
    return parser


def _daemon_flags(parser: argparse.ArgumentParser) -> None:
    from exporter.config import FLAGS, VARIABLES  # noqa: PLC0415

    for flag in FLAGS:
        default = f"; default: {flag.default}" if flag.default else ""
        text = f"{flag.help}{default} (environment: {flag.env})".replace("%", "%%")
        parser.add_argument(flag.spelling, dest=flag.key, metavar=flag.metavar, help=text)
    secrets = "\n".join(f"  {name}\n      {text}" for name, text in VARIABLES)
    parser.formatter_class = _Formatter
    parser.epilog = f"environment only:\n{secrets}"


# --- Version ----------------------------------------------------------------------------------------------------------


def version() -> str:
    """The version as Prometheus's own programs print it; what the build did not say stays empty."""
    return (
        f"agentos_exporter, version {__version__} (branch: , revision: {revision()})\n"
        "  build user:       \n"
        "  build date:       \n"
        f"  python version:   {platform.python_version()}\n"
        f"  platform:         {sysconfig.get_platform()}"
    )


def _version(_options: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    print(version())
    return 0


# --- The daemon -------------------------------------------------------------------------------------------------------


def _load(options: argparse.Namespace, environ: Mapping[str, str], *, check_prices: bool = True) -> Config:
    from exporter.config import load  # noqa: PLC0415

    return load(vars(options), environ, check_prices=check_prices)


def _complain(text: str, kind: str = "error") -> None:
    from exporter.core.logs import complain  # noqa: PLC0415

    complain(text, kind)


def _run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    try:
        config = _load(options, environ)
    except ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        return 1
    import structlog  # noqa: PLC0415

    from exporter.core.logs import configure  # noqa: PLC0415

    configure(config.log_level, config.log_format)
    try:
        from exporter.service.daemon import run  # noqa: PLC0415

        asyncio.run(run(config, lambda: _load(options, environ, check_prices=False)))
    except ExporterError as error:
        _complain(str(error))
        return 1
    except Exception:  # noqa: BLE001 - one line in the log, whatever it is
        structlog.get_logger("exporter").exception("crashed")
        return 1
    return 0


def _check_config(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from exporter.service.daemon import rehearse  # noqa: PLC0415

    try:
        config = _load(options, environ)
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


def describe(config: Config) -> list[str]:
    """What the configuration was understood as, in lines; of tokens only where they come from."""
    from exporter.config import format_duration  # noqa: PLC0415

    source = str(config.config_file) if config.config_file is not None else "none: flags and environment only"
    durations = (
        *("poll_interval", "poll_deadline", "sessions_interval", "overlap", "trace_horizon", "initial_lookback"),
        *("zero_hold", "stall_budget"),
    )
    facts = [
        ("file", source),
        ("state", "memory: counters restart at 0 with the process" if config.state is None else str(config.state)),
        ("listen_address", str(config.listen_address)),
        ("log", f"{config.log_level}, {config.log_format or 'logfmt, on a terminal colours'}"),
        *((name, format_duration(getattr(config, name))) for name in durations),
        ("series_per_metric", str(config.limits.series_per_metric)),
        ("values_per_label", str(config.limits.values_per_label)),
        ("label_value_length", str(config.limits.label_value_length)),
        ("labels.user", str(config.user_labels)),
    ]
    for agentos in config.agentos:
        facts += [("", ""), ("agentos", agentos.name), *((f"  {key}", text) for key, text in _instance(agentos))]
    for budget in config.budgets:
        facts += [("", ""), ("budget", budget.name), *((f"  {key}", text) for key, text in _budget(budget))]
    return [escaped(f"{key:<19} {text}").rstrip() for key, text in facts]


def _budget(budget: Budget) -> list[tuple[str, str]]:
    from exporter.pricing import money  # noqa: PLC0415

    filters = {key: getattr(budget, key) for key in ("agentos", "root", "agent", "model", "user")}
    return [
        ("limit_usd", money.text(budget.limit)),
        ("period", f"{budget.period}, {budget.time_zone}"),
        ("for", ", ".join(f"{key} {value}" for key, value in filters.items() if value) or "everything"),
    ]


def _instance(agentos: AgentOS) -> list[tuple[str, str]]:
    from exporter.core.logs import redact  # noqa: PLC0415

    if agentos.databases:
        return [fact for one in agentos.databases for fact in _database(one)]
    token = "none"  # noqa: S105
    if agentos.token_file is not None:
        token = f"from the file {agentos.token_file}"
    elif agentos.token is not None:
        token = f"from the environment variable {agentos.token_env}"
    facts = [
        ("url", agentos.url),
        ("token", token),
        ("databases", ", ".join(agentos.db_ids) if agentos.db_ids is not None else "all that AgentOS lists"),
    ]
    if agentos.proxy is not None:
        facts.append(("proxy", redact(agentos.proxy.reveal())))
    if agentos.tls is not None:
        for key in ("ca_file", "cert_file", "key_file", "server_name"):
            value = getattr(agentos.tls, key)
            if value is not None:
                facts.append((f"tls.{key}", str(value)))
    return facts


def _database(one: Database) -> list[tuple[str, str]]:
    password = "none"  # noqa: S105
    if one.password_file is not None:
        password = f"from the file {one.password_file}"
    elif one.password is not None:
        password = f"from the environment variable {one.password_env}"
    place = one.location
    schema = f", schema {place.schema}" if place.schema else ""
    return [("database", f"{place}{schema}"), ("user", place.user or "none"), ("password", password)]


# --- The others -------------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    from exporter import demo  # noqa: PLC0415

    return demo.run(options)


def _prices(options: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    from exporter.cli import prices as prices_cli  # noqa: PLC0415

    return prices_cli.run(options)


def _traces(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from exporter.cli import traces as traces_cli  # noqa: PLC0415

    return traces_cli.run(options, environ)


def _metrics(options: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    from exporter.metrics import reference  # noqa: PLC0415

    if options.format == "markdown":
        print(reference.markdown(), end="")
    elif options.format == "json":
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
            print(f"{name}  ({', '.join(part for part in (kind, unit, life) if part)})")
            for text in (meaning, f"labels: {labels or 'none'}"):
                print(textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    "))
        return
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    for row in (header, *rows):
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        print(line)
