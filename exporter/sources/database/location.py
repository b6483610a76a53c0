"""The location of a database of AgentOS: an SQLAlchemy URL as AgentOS itself takes it, and the names of agno's tables.

This module opens no connection. Passwords are not part of a location, so it may be shown.
"""

from __future__ import annotations

import difflib
import enum
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_SCHEMA: Final = "ai"
"""agno's own"""
IDENTIFIER: Final = re.compile(r"[^\s\"`\\%\x00](?:[^\"`\\%\x00]{0,61}[^\s\"`\\%\x00])?")
"""Names of schemas and tables that can be quoted on each engine"""


class Engine(enum.StrEnum):
    """The databases that can be read."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
    MYSQL = "mysql"


_ENGINES: Final = {
    "sqlite": Engine.SQLITE,
    "postgresql": Engine.POSTGRESQL,
    "postgres": Engine.POSTGRESQL,
    "mysql": Engine.MYSQL,
    "mariadb": Engine.MYSQL,
}
_DRIVERS: Final = {Engine.POSTGRESQL: ("psycopg", "postgres"), Engine.MYSQL: ("pymysql", "mysql")}
"""engine → (module that talks to it, extra that installs it)"""
_OPTIONS: Final = {
    Engine.SQLITE: frozenset[str](),
    Engine.POSTGRESQL: frozenset(
        {
            *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslnegotiation", "ssl_min_protocol_version"),
            *("host", "port", "hostaddr", "target_session_attrs", "load_balance_hosts", "connect_timeout"),
            *("application_name", "channel_binding", "require_auth", "gssencmode", "krbsrvname"),
            *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        }
    ),
    Engine.MYSQL: frozenset(
        {
            *("ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert", "ssl_verify_identity"),
            *("unix_socket", "connect_timeout", "charset"),
        }
    ),
}
"""allowed options after a URL's question mark"""


@dataclass(frozen=True, slots=True)
class Tables:
    """Names of agno's tables, as its databases call their parameters."""

    spans_table: str = "agno_spans"
    traces_table: str = "agno_traces"
    session_table: str = "agno_sessions"
    components_table: str = "agno_components"
    approvals_table: str = "agno_approvals"
    schedules_table: str = "agno_schedules"
    schedule_runs_table: str = "agno_schedule_runs"
    job_table: str = "agno_jobs"
    eval_table: str = "agno_eval_runs"
    knowledge_table: str = "agno_knowledge"
    memory_table: str = "agno_memories"
    runs_table: str = "agno_runs"

    @classmethod
    def named(cls, names: Mapping[str, str]) -> Tables:
        """The names of tables, some replaced. As in agno, the name of the table of runs follows that of sessions."""
        session = names.get("session_table")
        runs = {"runs_table": f"{session}_runs"} if session else {}
        return cls(**{**runs, **names})


@dataclass(frozen=True, slots=True)
class Location:
    """One database of an AgentOS. `database` is the path of the file on SQLite, '' where the URL names none.

    `hosts` are tried one after the other where the engine can; `options` are the driver's.
    """

    engine: Engine
    database: str
    hosts: tuple[tuple[str, int | None], ...] = ()
    user: str = ""
    options: tuple[tuple[str, str], ...] = ()
    schema: str = ""
    tables: Tables = Tables()

    def __str__(self) -> str:
        if self.engine is Engine.SQLITE:
            return f"sqlite:///{self.database}"
        hosts = ",".join(host if port is None else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.engine}://{hosts}/{self.database}"

    @property
    def key(self) -> str:
        """The key of the database in the ledger: its address, and the tables that are read."""
        parts = [str(self)]
        if self.schema:
            parts.append(f"schema={self.schema}")
        if self.tables.spans_table != Tables().spans_table:
            parts.append(f"spans_table={self.tables.spans_table}")
        return "database:" + " ".join(parts)


def parse(text: str, base: Path, schema: str | None = None, tables: Tables | None = None) -> Location:
    """The location that a URL names.

    Args:
        text: The URL.
        base: The folder that relative paths of files start from.
        schema: The schema of the tables; None for the default.
        tables: Names of the tables; None for the defaults.

    Raises:
        ValueError: The URL is refused. The message never repeats the URL, since a password may be in it.

    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - most configurations name no database
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    if not text.isprintable() or text != text.strip():
        raise ValueError("a database URL has no spaces around it and no control characters")
    try:
        url = make_url(text)
        engine = _ENGINES.get(url.get_backend_name().lower())
        port = url.port
    except (ArgumentError, ValueError):
        raise ValueError(_NO_URL) from None
    if engine is None:
        raise ValueError(_NO_URL)
    if url.password is not None or "password" in url.query or "passwd" in url.query:
        raise ValueError("the URL carries no password here; it belongs into password_file or password_env")
    unknown = sorted(set(url.query) - _OPTIONS[engine])
    if unknown:
        close = difflib.get_close_matches(unknown[0], _OPTIONS[engine], n=1, cutoff=0.7)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"the URL has an option that is not known for {engine}{hint}")
    if engine is Engine.SQLITE:
        return Location(engine, _file(url.database, base), tables=tables or Tables())
    module, extra = _DRIVERS[engine]
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"needs the package {module}: install agentos-exporter[{extra}]")
    hosts = _hosts(url.host, port, url.query)
    options = tuple(
        (name, value if isinstance(value, str) else ",".join(value))
        for name, value in sorted(url.query.items())
        if name not in {"host", "port"}
    )
    database = url.database or ""
    if engine is Engine.POSTGRESQL and not database:
        raise ValueError("the URL names no database; write it after the host: postgresql://host/database")
    return Location(engine, database, hosts, url.username or "", options, schema or DEFAULT_SCHEMA, tables or Tables())


_NO_URL: Final = (
    "is not a database URL such as postgresql://reader@db/agno, mysql://reader@db/agno or sqlite:///agno.db"
)


def _file(database: str | None, base: Path) -> str:
    if not database or database == ":memory:":
        raise ValueError("the URL names no file: sqlite:///relative.db or sqlite:////absolute.db")
    if database.startswith("file:"):
        raise ValueError("the URL names a file by its path, not by a file: URI")
    return str(base / database)


def _hosts(
    host: str | None, port: int | None, query: Mapping[str, str | Sequence[str]]
) -> tuple[tuple[str, int | None], ...]:
    """All hosts of a URL: one before the path, or several as options, as SQLAlchemy has them (`?host=a:1&host=b:2`)."""
    if host:
        return ((host, port),)
    hosts_option = query.get("host", ())
    hosts: list[tuple[str, int | None]] = []
    for text in (hosts_option,) if isinstance(hosts_option, str) else hosts_option:
        name, colon, number = text.rpartition(":")
        alone = not colon or text.startswith("/") or not number.isdigit()
        hosts.append((text, None) if alone else (name, int(number)))
    ports = query.get("port", ())
    for place, number in enumerate((ports,) if isinstance(ports, str) else ports):
        if place < len(hosts) and number.isdigit():
            hosts[place] = (hosts[place][0], int(number))
    return tuple(hosts) or (("localhost", port),)
