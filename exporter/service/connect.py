"""A configured AgentOS → the source that reads it, with its secrets kept out of every log and message."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from exporter.config import SharedState
from exporter.core.errors import ConfigError, StateRefused
from exporter.core.logs import redact, register_secret
from exporter.ledger import coverage, daily, looking
from exporter.ledger.coverage import Coverage
from exporter.ledger.daily import Days
from exporter.ledger.store import Ledger
from exporter.sources.database.source import DatabaseSource, DatabaseTarget

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from datetime import date
    from pathlib import Path

    import psycopg
    import sqlalchemy as sa

    from exporter.config import AgentOS, Secret
    from exporter.core.model import Clock
    from exporter.sources.api.source import AgentOSSource
    from exporter.sources.position import Settings

    OnAnswer = Callable[[str, str, int], None]


def make_source(
    agentos: AgentOS, settings: Settings, clock: Clock, on_answer: OnAnswer = lambda _endpoint, _code, _size: None
) -> AgentOSSource | DatabaseSource:
    """Make the source that reads an AgentOS. It has sent no request yet.

    Args:
        agentos: its configuration.
        settings: how far back and how gently it is read.
        clock: the time.
        on_answer: called with endpoint, status code and bytes of each answer of an API.

    Raises:
        ConfigError: that names the AgentOS, whatever keeps a client or a driver from being made.

    """
    register_proxy(agentos.proxy)
    try:
        if agentos.databases:
            targets = [
                DatabaseTarget(database.location, _registered(database.read_password)) for database in agentos.databases
            ]
            return DatabaseSource(agentos.name, targets, settings, clock, details=agentos.enrich_runs)
        return _api_source(agentos, settings, clock, on_answer)
    except ConfigError:
        raise
    except Exception as error:
        reason = redact(str(error)) or type(error).__name__
        raise ConfigError([f"agentos {agentos.name}: cannot be read as it is configured: {reason}"]) from error


_TCP_LIMITS: Final = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "client_encoding": "utf8",
}
"""libpq's options unless the URL has them: a silent network must not block the state for hours."""


def open_ledger(state: Path | SharedState | None, *, whole: bool = False, must_exist: bool = False) -> Ledger:
    """Open the configured state. Blocks.

    Args:
        state: where it is; None for memory.
        whole: whether no other process may use it meanwhile, which nobody may in a file.
        must_exist: whether nothing is made where there is none.

    Raises:
        StateError: it cannot be used.

    """
    if not isinstance(state, SharedState):
        if must_exist and state is not None and not state.exists():
            raise StateRefused(f"state file {state}: there is no file")
        return Ledger(state)
    from exporter.ledger.leases import Leases  # noqa: PLC0415
    from exporter.ledger.postgres import StateDatabase  # noqa: PLC0415

    connect = _connector(state)
    # Process ids are reused, in containers above all.
    leases = Leases(f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}", state.lease)
    location = state.location
    place = StateDatabase(str(location), connect, leases, schema=location.schema, whole=whole, must_exist=must_exist)
    return Ledger(place)


def look_at_state(state: Path | SharedState | None, agentos: str) -> Coverage:
    """What a state has of an AgentOS; its daemon may be running. Memory has nothing. Raises StateError."""
    with _looking(state) as connection:
        return Coverage() if connection is None else coverage.read(connection, agentos)


def look_at_days(state: Path | SharedState | None, agentos: str | None, first: date, last: date) -> Days:
    """The daily sums in a state, which its daemon may be using.

    Args:
        state: Where the state is; None for memory.
        agentos: Name of an instance; None for all.
        first: The first day.
        last: The last day.

    Raises:
        StateError: The state cannot be read.

    """
    with _looking(state) as connection:
        return Days() if connection is None else daily.read(connection, agentos, first, last)


@contextlib.contextmanager
def _looking(state: Path | SharedState | None) -> Iterator[sa.Connection | None]:
    """A connection that only reads; None if there is no state. Raises StateError."""
    if isinstance(state, SharedState):
        location = state.location
        with looking.database(_connector(state), str(location), location.schema) as connection:
            yield connection
    elif state is None or not state.exists():
        yield None
    else:
        with looking.file(state) as connection:
            yield connection


def _connector(state: SharedState) -> Callable[[], psycopg.Connection[Any]]:
    """What opens a connection to the database of a state."""
    import psycopg  # noqa: PLC0415 - an extra

    from exporter.sources.database.postgres import connect_options  # noqa: PLC0415

    read_password = _registered(state.read_password)

    def connect() -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(**(_TCP_LIMITS | connect_options(state.location, read_password())))
        except (ConfigError, UnicodeError) as error:  # of the password, of a host name
            raise psycopg.OperationalError(redact(str(error))) from None

    return connect


def register_proxy(proxy: Secret | None) -> None:
    """The password of a proxy never shows in a log."""
    if proxy is not None and (password := urlsplit(proxy.reveal()).password):
        register_secret(password)
        register_secret(unquote(password))


def _api_source(agentos: AgentOS, settings: Settings, clock: Clock, on_answer: OnAnswer) -> AgentOSSource:
    # agno takes a second and 40 MB; reading tables does not need it.
    from exporter.sources.api.source import AgentOSSource, Target  # noqa: PLC0415

    target = Target(
        agentos.name,
        agentos.url,
        _registered(agentos.read_token),
        agentos.db_ids,
        _tls(agentos),
        agentos.tls.server_name if agentos.tls is not None else None,
        None if agentos.proxy is None else agentos.proxy.reveal(),
    )
    return AgentOSSource(target, settings, clock, on_answer=on_answer)


def _tls(agentos: AgentOS) -> ssl.SSLContext | None:
    if agentos.tls is None:
        return None
    try:
        return agentos.tls.context()
    except OSError as error:
        raise ConfigError([f"agentos {agentos.name}: tls: {error.strerror or error}"]) from None


def _registered(read: Callable[[], str | None]) -> Callable[[], str | None]:
    """What `read` returns never shows in a log."""

    def reading() -> str | None:
        secret = read()
        if secret is not None:
            register_secret(secret)
        return secret

    return reading
