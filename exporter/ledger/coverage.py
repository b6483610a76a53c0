"""What a state says of one AgentOS to others than its daemon. It is opened to be read, and never changed or locked."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import sqlalchemy as sa

from exporter.core.errors import StateError, StateRefused
from exporter.ledger import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.metrics.increments import Key

USER_KEY: Final = "user_key"
"""The key of `meta` with the secret that keys the hashes of user ids, in hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What of an AgentOS is counted already.

    Attributes:
        since: Traces that ended at or after are counted (the source's clock, microseconds); None: it was never read.
        series: All its series.
        admitted: All (label, value) within the limits, of any AgentOS.
        user_key: The secret that keys the hashes of user ids; None where none was made yet.
        hidden: Spans that the AgentOS announced and never showed.
        ignored: Traces of it that were not counted, but for the exporter's own requests.
        until: Traces that ended before were read (the source's clock, microseconds); None: it was never read.
        waiting: Calls that are counted and whose tokens and cost are not yet: they wait for the detail of their run.

    """

    since: int | None = None
    series: tuple[Key, ...] = ()
    admitted: tuple[tuple[str, str], ...] = ()
    user_key: bytes | None = None
    hidden: int = 0
    ignored: int = 0
    until: int | None = None
    waiting: int = 0


def of_file(path: Path, agentos: str) -> Coverage:
    """Read it from a state file, which a daemon may have in use; no file says nothing. Raises StateError."""
    if not path.exists():
        return Coverage()
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=5))
    with _read(engine, f"state file {path}") as connection:
        version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        return _coverage(connection, agentos, f"state file {path}", version)


def of_database(connect: Callable[[], object], where: str, schema: str, agentos: str) -> Coverage:
    """Read it from a schema of PostgreSQL; `connect` opens a connection of psycopg. Raises StateError."""
    engine = sa.create_engine("postgresql+psycopg://", creator=connect)
    with _read(engine, where) as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        connection.exec_driver_sql(f'SET LOCAL search_path TO "{schema}"')
        known = tables.meta.c
        version = connection.execute(sa.select(known.value).where(known.key == "version")).scalar()
        return _coverage(connection, agentos, where, int(version or 0))


@contextlib.contextmanager
def _read(engine: sa.Engine, where: str) -> Iterator[sa.Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        raise StateError(f"{where}: {error.orig}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise StateRefused(f"{where}: broken: it cannot be read ({type(error).__name__})") from error
    finally:
        engine.dispose()


def _coverage(connection: sa.Connection, agentos: str, where: str, version: int) -> Coverage:
    if version != tables.SCHEMA_VERSION:
        raise StateRefused(
            f"{where}: its schema is {version}, and this version of agentos-exporter knows {tables.SCHEMA_VERSION}; "
            "use the version that the daemon has, which brings an older state to its own schema"
        )
    cursors, series, admissions = tables.cursors.c, tables.series.c, tables.admissions.c
    stood = connection.execute(sa.select(cursors.data).where(cursors.agentos == agentos)).scalars()
    positions = [json.loads(data) for data in stood]
    waiting = sa.select(sa.func.count()).select_from(tables.waiting).where(tables.waiting.c.agentos == agentos)
    known = connection.execute(sa.select(series.metric, series.labels).where(series.agentos == agentos))
    key = connection.execute(sa.select(tables.meta.c.value).where(tables.meta.c.key == USER_KEY)).scalar()
    return Coverage(
        min((int(one["floor"]) for one in positions), default=None),
        tuple((metric, tuple(map(str, json.loads(labels)))) for metric, labels in known),
        tuple((label, value) for label, value in connection.execute(sa.select(admissions.label, admissions.value))),
        None if key is None else bytes.fromhex(key),
        _total(connection, "agentos_exporter_hidden_spans_total", agentos),
        _total(connection, "agentos_exporter_ignored_traces_total", agentos),
        min((int(one["cutoff"]) for one in positions if "cutoff" in one), default=None),
        connection.execute(waiting).scalar_one(),
    )


def _total(connection: sa.Connection, metric: str, agentos: str) -> int:
    """The sum of a counter over all its series of an AgentOS, without those of the exporter's own requests."""
    series = tables.series.c
    stored = sa.select(series.labels, series.value).where(series.metric == metric, series.agentos == agentos)
    return sum(int(value) for labels, value in connection.execute(stored) if "own" not in json.loads(labels)[1:])
