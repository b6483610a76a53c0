"""The state file: opening, locking, and refusing a file that must not be used."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from exporter.core.errors import StateError, StateRefused
from exporter.ledger import tables

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager
    from pathlib import Path

    from exporter.ledger.leases import Election, Lease, Leases

_HEADER: Final = b"SQLite format 3\0"
_HEADER_LENGTH: Final = 100
CURE: Final = "restore it from a backup, or move it away to start anew"
_ANOTHER: Final = "name another file with `state`"


class StateFile:
    """A ledger in a file, or in memory. See `Place`."""

    cure: str = CURE
    schema: str | None = None
    leases: Leases | None = None

    def __init__(self, path: Path | None) -> None:
        """Lock `path` and look at it; None is memory. Raises StateRefused for a file that must not be used."""
        self.path = path
        self.durable = path is not None
        self._lock_file = None if path is None else lock(path)
        try:
            if path is not None:
                inspect(path)
            self.engine = open_engine(path)
        except BaseException:
            self._unlock()
            raise

    def __str__(self) -> str:
        return f"state file {'in memory' if self.path is None else self.path}"

    def transaction(
        self,
        *,
        write: bool,  # noqa: ARG002 - see Place
        agentos: str | None,  # noqa: ARG002
        lease: Lease | None,  # noqa: ARG002
    ) -> AbstractContextManager[sa.Connection]:
        """See Place."""
        return self.engine.begin()

    def elect(self, wanted: Collection[str], mark: str) -> Election:
        """See Place: the process holds the lock on the file for its whole life."""
        raise NotImplementedError

    def release(self, names: Collection[str]) -> None:
        """See Place."""
        raise NotImplementedError

    def break_off(self, *, for_good: bool) -> None:
        """See Place: a file answers."""

    def fence(self, connection: sa.Connection) -> None:
        """See Place: there is no other process."""

    def version(self, connection: sa.Connection) -> int:
        """See Place."""
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())

    def set_version(self, connection: sa.Connection) -> None:
        """See Place."""
        connection.exec_driver_sql(f"PRAGMA application_id = {tables.APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {tables.SCHEMA_VERSION}")

    def explain(self, error: Exception, *, started: bool) -> StateError:
        """See Place."""
        return explain(self.path, error, started=started)

    def close(self) -> None:
        """See Place."""
        self.engine.dispose()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def open_engine(path: Path | None) -> sa.Engine:
    """Connect to the file, or to a database in memory."""
    url = sa.URL.create("sqlite", database=None if path is None else str(path))
    engine = sa.create_engine(url, connect_args={"check_same_thread": False, "timeout": 5}, poolclass=StaticPool)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions are ours: see _start
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # A power failure must not lose values that a scraper has seen.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _start(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def lock(path: Path) -> int:
    """Lock the state file for the life of this process, through a file beside it; return its descriptor."""
    beside = path.with_name(path.name + ".lock")
    if not path.parent.is_dir():
        raise StateRefused(
            f"state file {path}: there is no folder {path.parent}; create it, writable for this user, or {_ANOTHER}"
        )
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateRefused(
            f"state file {path}: cannot create {beside.name} beside it ({error.strerror}); "
            f"make the folder writable for this user, or {_ANOTHER}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateRefused(
            f"state file {path}: another agentos-exporter is using it; stop that one, or {_ANOTHER}"
        ) from error
    return descriptor


def inspect(path: Path) -> None:
    """Refuse a file that is not ours, is broken or is from the future, before anything is written to it."""
    if not path.exists():
        return
    if not path.is_file():
        raise StateRefused(f"state file {path}: not a regular file; {_ANOTHER}")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_LENGTH)
    except OSError as error:
        raise StateRefused(
            f"state file {path}: cannot be read ({error.strerror}); give this user access to it"
        ) from error
    if not header:
        raise StateRefused(f"state file {path}: truncated: it is empty; {CURE}")
    if not header.startswith(_HEADER):
        raise StateRefused(f"state file {path}: not a state file of agentos-exporter; it was left as it is: {_ANOTHER}")
    if len(header) < _HEADER_LENGTH:
        raise StateRefused(f"state file {path}: truncated; {CURE}")
    # Root may write any file. A file without write permission for anybody is still meant to stay as it is.
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
        raise StateRefused(f"state file {path}: read-only; make it writable for this user")
    size, page = path.stat().st_size, int.from_bytes(header[16:18], "big")
    journal = path.with_name(path.name + "-wal")
    if page > 1 and size % page and not (journal.exists() and journal.stat().st_size):
        raise StateRefused(f"state file {path}: truncated; {CURE}")
    _inspect_database(path)


def _inspect_database(path: Path) -> None:
    """Refuse an SQLite database that is not ours, is broken or is from the future."""
    try:
        # Read-only: closing it must not move another program's write-ahead log into its file.
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application == version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                return  # a first start was killed before it created the tables
            if application != tables.APPLICATION_ID:
                raise StateRefused(
                    f"state file {path}: an SQLite database, but not a state file of agentos-exporter; "
                    f"it was left as it is: {_ANOTHER}"
                )
            if version > tables.SCHEMA_VERSION:
                raise StateRefused(
                    f"state file {path}: of a later schema ({version}) than this version knows "
                    f"({tables.SCHEMA_VERSION}); upgrade agentos-exporter, or move the file away to start anew"
                )
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise StateRefused(f"state file {path}: broken ({error}); {CURE}") from error
    if verdict != "ok":
        raise StateRefused(f"state file {path}: broken ({verdict}); {CURE}")


def explain(path: Path | None, error: Exception, *, started: bool) -> StateError:
    """An error of SQLite as a StateError with its cure.

    Args:
        path: The file; None in memory.
        error: SQLite's error.
        started: Whether the file was in use already, so that polling goes on.

    """
    reason = str(error.orig) if isinstance(error, sa.exc.DBAPIError) else str(error)
    where = path if path is not None else "in memory"
    text = reason.lower()
    if "disk is full" in text or "no space" in text:
        rest = ": nothing was lost, and polling goes on from here" if started else " first"
        return StateError(f"state file {where}: the disk is full; free some space{rest}")
    if "readonly" in text or "read-only" in text:
        return StateError(f"state file {where}: read-only; make it writable for this user")
    if "malformed" in text or "not a database" in text:
        return StateRefused(f"state file {where}: broken ({reason}); {CURE}")
    return StateError(f"state file {where}: {reason}")
