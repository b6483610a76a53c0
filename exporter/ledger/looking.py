"""A state that is looked at by others than its daemon, which may have it in use: it is never changed or locked."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

import sqlalchemy as sa

from exporter.core.errors import StateError, StateRefused
from exporter.ledger import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def file(path: Path) -> Iterator[sa.Connection]:
    """Look at a state file. Raises StateError, also for rows that cannot be read."""
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=5))
    with _read(engine, where := f"state file {path}") as connection:
        _check_version(where, int(connection.exec_driver_sql("PRAGMA user_version").scalar_one()))
        yield connection


@contextlib.contextmanager
def database(connect: Callable[[], object], where: str, schema: str) -> Iterator[sa.Connection]:
    """Read a state in a schema of PostgreSQL. Raises as `file` does.

    Args:
        connect: Opens a connection of psycopg.
        where: What the state is called in messages.
        schema: The schema.

    """
    engine = sa.create_engine("postgresql+psycopg://", creator=connect)
    with _read(engine, where) as connection:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        connection.exec_driver_sql(f'SET LOCAL search_path TO "{schema}"')
        meta = tables.meta.c
        version = connection.execute(sa.select(meta.value).where(meta.key == "version")).scalar()
        _check_version(where, int(version or 0))
        yield connection


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


def _check_version(where: str, version: int) -> None:
    if version != tables.SCHEMA_VERSION:
        raise StateRefused(
            f"{where}: its schema is {version}, and this version of agentos-exporter knows {tables.SCHEMA_VERSION}; "
            "use the version that the daemon has, which brings an older state to its own schema"
        )
