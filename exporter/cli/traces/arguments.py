"""The flags of `traces`, and the AgentOS that they name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from exporter import config as configuration
from exporter.cli.traces.texts import plain
from exporter.core.errors import ConfigError
from exporter.core.model import MICROSECONDS

SCAN: Final = 1000
"""Traces that are read to find the wanted ones, unless --scan is given."""
ID_PREFIX: Final = 8
"""Digits of a trace id that are enough to name it."""
_MOST: Final = 1_000_000
_PREFIX: Final = configuration.ENV_PREFIX
_STATUSES: Final = ("OK", "ERROR", "UNSET")


# --- Values -----------------------------------------------------------------------------------------------------------


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST:
        raise ValueError(f"'{plain(text[:80])}' is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = configuration.parse_duration(f"{text}s" if text.isdigit() else text)
    except ValueError as error:
        raise ValueError(str(error)) from None
    if seconds <= 0:
        raise ValueError("must be longer than 0s")
    return seconds


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
        raise ValueError(f"'{shown}' is neither a duration such as 1h nor a time such as 2026-11-20T08:00") from None


def _status(text: str) -> str:
    if text.upper() not in _STATUSES:
        raise ValueError(f"'{plain(text[:80])}' is none of {', '.join(_STATUSES)}")
    return text.upper()


# --- Flags ------------------------------------------------------------------------------------------------------------


def _value(metavar: str, text: str, parse: Callable[[str], object] | None = None) -> Parameter:
    """A flag with a value: its name in the help, its meaning, and its parser."""
    converter = None if parse is None else configuration.read_by(parse)
    return Parameter(metavar=metavar, help=text, converter=converter, show_default=False)


def _of(metavar: str, text: str, parse: Callable[[str], object] | None = None, *, name: str | None = None) -> Parameter:
    """A flag that says which AgentOS is meant, or how to reach it."""
    converter = None if parse is None else configuration.read_by(parse)
    return Parameter(
        name=name, metavar=metavar, help=text, converter=converter, show_default=False, group="Which AgentOS"
    )


def _switch(text: str) -> Parameter:
    return Parameter(help=text, show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of every command of `traces`. Times are in microseconds since the epoch, `timeout` in seconds."""

    output: Annotated[Literal["table", "json"], Parameter(help="for people or for programs")] = "table"
    url: Annotated[str | None, _of("URL", f"of the AgentOS (environment: {_PREFIX}AGENTOS_URL)")] = None
    config_file: Annotated[str | None, _of("FILE", "or: the exporter's configuration", name="--config.file")] = None
    agentos: Annotated[str | None, _of("NAME", "which one of the file")] = None
    token_file: Annotated[str | None, _of("FILE", f"holds the token (environment: {_PREFIX}TOKEN_FILE)")] = None
    token_env: Annotated[
        str | None, _of("NAME", f"environment variable that holds the token (default: {_PREFIX}TOKEN)")
    ] = None
    ca_file: Annotated[str | None, _of("FILE", "authority of AgentOS's certificate (PEM)", name="--tls.ca-file")] = None
    db_id: Annotated[list[str] | None, _of("ID", "which of its databases; may be repeated (default: all)")] = None
    timeout: Annotated[float, _of("TIME", "for each request (default: 30s)", _seconds)] = 30.0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RowOptions(Options):
    """The flags of commands that show rows."""

    reverse: Annotated[bool, _switch("the other way round")] = False
    limit: Annotated[int, _value("N", "rows to show (default: 20)", _positive)] = 20
    page: Annotated[int, _value("N", "which page of so many rows (default: 1)", _positive)] = 1
    scan: Annotated[int, _value("N", f"most traces to read (default: {SCAN})", _positive)] = SCAN


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ListOptions(RowOptions):
    """Which traces `list` shows."""

    user: Annotated[str | None, _value("ID", "of this user")] = None
    session: Annotated[str | None, _value("ID", "of this session")] = None
    run: Annotated[str | None, _value("ID", "with this run")] = None
    agent: Annotated[str | None, _value("NAME", "in which this agent (id or name) took part")] = None
    team: Annotated[str | None, _value("NAME", "in which this team (id or name) took part")] = None
    workflow: Annotated[str | None, _value("NAME", "with this workflow (id or name), or step (name)")] = None
    status: Annotated[str | None, _value("OK|ERROR|UNSET", "ERROR: any of its spans failed", _status)] = None
    since: Annotated[int | None, _value("TIME", "started since: 30m, 1h, 2d ago, or an ISO time", _moment)] = None
    until: Annotated[int | None, _value("TIME", "started until then", _moment)] = None
    all: Annotated[bool, _switch("HTTP requests to AgentOS that ran nothing, too")] = False
    sort: Annotated[
        Literal["start", "duration", "spans", "errors"], Parameter(help="largest first; latest first by default")
    ] = "start"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """Which trace `show` shows, and how much of it."""

    trace_id: Annotated[str, Parameter(parse=False)] = ""
    content: Annotated[bool, _switch("prompts, answers and tool arguments, too")] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SessionOptions(RowOptions):
    """Which sessions `sessions` shows."""

    user: Annotated[str | None, _value("ID", "of this user")] = None
    agent: Annotated[str | None, _value("NAME", "in which this agent (id or name) took part")] = None
    sort: Annotated[Literal["last", "first", "traces", "session"], Parameter(help="last active first by default")] = (
        "last"
    )


def find_agentos(options: Options, environ: Mapping[str, str]) -> configuration.AgentOS:
    """The AgentOS that flags, environment and file name. Raises ConfigError."""
    prefix = _PREFIX
    if options.token_file is not None and options.token_env is not None:
        raise ConfigError(["--token-file: not allowed with --token-env"])
    ours = {f"{prefix}{name}" for name in ("CONFIG_FILE", "AGENTOS_URL", "TOKEN", "TOKEN_FILE")}
    # Mistakes that only concern the daemon must not prevent looking at traces.
    environ = {name: value for name, value in environ.items() if not name.startswith(prefix) or name in ours}
    if options.agentos is not None or (options.config_file is not None and options.url is None):
        environ.pop(f"{prefix}AGENTOS_URL", None)
    if options.token_file is not None or options.token_env is not None:
        kept = {name: value for name, value in environ.items() if name not in _token_variables()}
    else:
        kept = environ
    try:
        config = configuration.load({"config_file": options.config_file, "agentos_url": options.url}, kept)
    except ConfigError as error:
        raise ConfigError([line.replace("--agentos.url", "--url") for line in error.problems]) from None
    agentos = _named(config.agentos, options.agentos)
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


def _named(config: tuple[configuration.AgentOS, ...], name: str | None) -> configuration.AgentOS:
    names = ", ".join(agentos.name for agentos in config)
    if name is None:
        if len(config) == 1:
            return config[0]
        raise ConfigError([f"--agentos: the configuration has several; name one of {names}"])
    for agentos in config:
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
