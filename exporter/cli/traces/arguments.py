"""The flags of `traces`, and the AgentOS that they name."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from exporter import config as configuration
from exporter.cli.traces.texts import plain
from exporter.core.errors import ConfigError
from exporter.core.model import MICROSECONDS

COMMANDS: Final = ("list", "show", "sessions")
SCAN: Final = 1000
"""Traces that are read in search of those asked for, unless --scan says otherwise."""
ID_PREFIX: Final = 8
"""Digits of a trace id that are enough to name it."""
_MOST: Final = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of `traces`, with their flags."""
    commands = parser.add_subparsers(dest="traces_command", metavar="COMMAND", required=True)

    def add(name: str, text: str, flags: Callable[[argparse.ArgumentParser], None]) -> None:
        added = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", formatter_class=_Formatter
        )
        flags(added)
        added.add_argument("--output", choices=("table", "json"), default="table", help="for people or for programs")
        _connection(added.add_argument_group("which AgentOS"))

    add("list", "recent traces", _list_flags)
    add("show", "one trace, span by span", _show_flags)
    add("sessions", "sessions and what they did", _sessions_flags)
    parser.formatter_class = _Formatter
    parser.epilog = "Without a command: --trace-id ID is show, --stats is sessions, anything else is list."


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def _list_flags(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag("--user", metavar="ID", help="of this user")
    flag("--session", metavar="ID", help="of this session")
    flag("--run", metavar="ID", help="with this run")
    flag("--agent", metavar="NAME", help="in which this agent (id or name) took part")
    flag("--team", metavar="NAME", help="in which this team (id or name) took part")
    flag("--workflow", metavar="NAME", help="with this workflow (id or name), or step (name)")
    flag("--status", choices=("OK", "ERROR", "UNSET"), type=str.upper, help="ERROR: any of its spans failed")
    flag("--since", type=_moment, metavar="TIME", help="started since: 30m, 1h, 2d ago, or an ISO time")
    flag("--until", type=_moment, metavar="TIME", help="started until then")
    flag("--all", action="store_true", help="HTTP requests to AgentOS that ran nothing, too")
    orders = ("start", "duration", "spans", "errors")
    flag("--sort", choices=orders, default="start", help="largest first; latest first by default")
    _rows(parser)


def _show_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace_id", metavar="TRACE_ID", help=f"the id, or at least its first {ID_PREFIX} digits")
    parser.add_argument("--content", action="store_true", help="prompts, answers and tool arguments, too")


def _sessions_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", metavar="ID", help="of this user")
    parser.add_argument("--agent", metavar="NAME", help="in which this agent (id or name) took part")
    orders = ("last", "first", "traces", "session")
    parser.add_argument("--sort", choices=orders, default="last", help="last active first by default")
    _rows(parser)


def _rows(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag("--reverse", action="store_true", help="the other way round")
    flag("--limit", type=_positive, default=20, metavar="N", help="rows to show (default: 20)")
    flag("--page", type=_positive, default=1, metavar="N", help="which page of so many rows (default: 1)")
    flag("--scan", type=_positive, default=SCAN, metavar="N", help=f"most traces to read (default: {SCAN})")


def _connection(group: argparse._ArgumentGroup) -> None:
    prefix = configuration.ENV_PREFIX
    group.add_argument("--url", metavar="URL", help=f"of the AgentOS (environment: {prefix}AGENTOS_URL)")
    group.add_argument("--config.file", dest="config_file", metavar="FILE", help="or: the exporter's configuration")
    group.add_argument("--agentos", metavar="NAME", help="which one of the file")
    token = group.add_mutually_exclusive_group()
    token.add_argument("--token-file", metavar="FILE", help=f"holds the token (environment: {prefix}TOKEN_FILE)")
    token.add_argument(
        "--token-env", metavar="NAME", help=f"environment variable that holds it (default: {prefix}TOKEN)"
    )
    group.add_argument("--tls.ca-file", dest="ca_file", metavar="FILE", help="authority of AgentOS's certificate (PEM)")
    group.add_argument(
        "--db-id", action="append", metavar="ID", help="which of its databases; may be repeated (default: all)"
    )
    group.add_argument("--timeout", type=_seconds, default=30.0, metavar="TIME", help="for each request (default: 30s)")


def rewrite(arguments: Sequence[str]) -> list[str]:
    """Arguments after `traces`, with the command in front.

    Without a command `--trace-id ID` stands for `show ID`, `--stats` for `sessions`, and anything else for `list`.
    """
    rest = list(arguments)
    if not rest or not rest[0].startswith("-"):
        return rest or ["list"]
    flags = ("--all", "--content", "--reverse", "--stats")
    for place, word in enumerate(rest):
        takes_this = place > 0 and rest[place - 1].startswith("--") and "=" not in rest[place - 1]
        if word in COMMANDS and not (takes_this and rest[place - 1] not in flags):
            return [word, *rest[:place], *rest[place + 1 :]]
    if rest[0] in {"-h", "--help"}:
        return rest
    for place, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if name == "--trace-id" and (equals or place + 1 < len(rest)):
            ours = place + (1 if equals else 2)
            return ["show", *rest[:place], *rest[ours:], "--", value if equals else rest[place + 1]]
    if "--stats" in rest:
        return ["sessions", *(word for word in rest if word != "--stats")]
    return ["list", *rest]


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"'{plain(text[:80])}' is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = configuration.parse_duration(f"{text}s" if text.isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found <= 0:
        raise argparse.ArgumentTypeError("must be longer than 0s")
    return found


def _moment(text: str) -> int:
    """Microseconds since the epoch: a duration before now, or an ISO time, which is local unless it has a zone."""
    try:
        return int((time.time() - configuration.parse_duration(text)) * MICROSECONDS)
    except ValueError:
        pass
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * MICROSECONDS)
    except (ValueError, OverflowError, OSError):
        shown = plain(text[:80])
        raise argparse.ArgumentTypeError(
            f"'{shown}' is neither a duration such as 1h nor a time such as 2026-11-20T08:00"
        ) from None


def find_agentos(options: argparse.Namespace, environ: Mapping[str, str]) -> configuration.AgentOS:
    """The AgentOS that flags, environment and file name. Raises ConfigError."""
    prefix = configuration.ENV_PREFIX
    ours = {f"{prefix}{name}" for name in ("CONFIG_FILE", "AGENTOS_URL", "TOKEN", "TOKEN_FILE")}
    # What only concerns the daemon must not keep anybody from looking.
    environ = {name: value for name, value in environ.items() if not name.startswith(prefix) or name in ours}
    if options.agentos is not None or (options.config_file is not None and options.url is None):
        environ.pop(f"{prefix}AGENTOS_URL", None)
    if options.token_file is not None or options.token_env is not None:
        kept = {name: value for name, value in environ.items() if name not in _token_variables()}
    else:
        kept = environ
    try:
        found = configuration.load({"config_file": options.config_file, "agentos_url": options.url}, kept)
    except ConfigError as error:
        raise ConfigError([line.replace("--agentos.url", "--url") for line in error.problems]) from None
    agentos = _named(found.agentos, options.agentos)
    if agentos.databases:
        raise ConfigError([f"agentos {agentos.name}: is read from its database; name its API with --url"])
    if options.token_file is not None:
        agentos = replace(agentos, token_file=Path(options.token_file), token=None, token_env=None)
    elif options.token_env is not None:
        secret = _from_variable(options.token_env, environ)
        agentos = replace(agentos, token_file=None, token=secret, token_env=options.token_env)
    if options.ca_file is not None:
        if agentos.url.startswith("http://"):
            raise ConfigError(["--tls.ca-file: makes no sense with an http:// url"])
        agentos = replace(agentos, tls=replace(agentos.tls or configuration.Tls(), ca_file=Path(options.ca_file)))
    return replace(agentos, db_ids=tuple(options.db_id)) if options.db_id else agentos


def _token_variables() -> set[str]:
    return {name for name, _ in configuration.VARIABLES}


def _named(found: tuple[configuration.AgentOS, ...], name: str | None) -> configuration.AgentOS:
    names = ", ".join(agentos.name for agentos in found)
    if name is None:
        if len(found) == 1:
            return found[0]
        raise ConfigError([f"--agentos: the configuration has several; name one of {names}"])
    for agentos in found:
        if agentos.name == name:
            return agentos
    raise ConfigError([f"--agentos: the configuration has no '{plain(name)}'; it has {names}"])


def _from_variable(name: str, environ: Mapping[str, str]) -> configuration.Secret:
    token = environ.get(name, "").strip()
    if not token:
        raise ConfigError(["--token-env: names no environment variable that is set"])
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(["--token-env: the variable must hold the token alone, in one line of printable ASCII"])
    return configuration.Secret(token)
