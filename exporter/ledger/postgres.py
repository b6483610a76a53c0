"""A ledger in a schema of PostgreSQL, which one process at a time owns by a lease.

The lease is a row with a number, the fencing token, that grows with each owner. Each transaction that writes asks for
its own number and keeps the row locked until it ends. So whoever lost the lease, however late it notices, commits
nothing any more.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from exporter.core.errors import StateError, StateRefused
from exporter.ledger import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_UNCERTAIN: Final = 30.0
"""Seconds for which it is tried to find out whether a commit was done whose connection broke."""
_PATIENCE: Final = 30.0
"""Seconds at most that a start waits for the lease of another."""
_PAUSE: Final = 0.5
_LOCKED: Final = "55P03"
"""SQLSTATE of a lock that was not to be had in time."""
_LIMITS: Final = (
    "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '5s'; "
    # The server ends the transaction of a process that vanished, and with it the hold on the lease.
    "SET LOCAL idle_in_transaction_session_timeout = '30s'"
)
_LEASE_TABLE: Final = """
CREATE TABLE IF NOT EXISTS lease (
    name text PRIMARY KEY, token bigint NOT NULL, holder text NOT NULL,
    until timestamptz NOT NULL, commits bigint NOT NULL
)
"""
_ACQUIRE: Final = """
INSERT INTO lease VALUES ('all', 1, :holder, clock_timestamp() + make_interval(secs => :seconds), 0)
ON CONFLICT (name) DO UPDATE
SET token = lease.token + 1, holder = excluded.holder, until = excluded.until WHERE lease.until < clock_timestamp()
RETURNING token, commits
"""
_RENEW: Final = """
UPDATE lease SET until = clock_timestamp() + make_interval(secs => :seconds), commits = commits + 1
WHERE name = 'all' AND token = :token AND commits = :commits RETURNING commits
"""
_RELEASE: Final = "UPDATE lease SET until = clock_timestamp() WHERE name = 'all' AND token = :token"
_FOUND: Final = "SELECT token, commits FROM lease WHERE name = 'all'"
_TABLES: Final = """
SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = :schema AND relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_TAKEN: Final = "another agentos-exporter took it over; this one counts nothing any more"
_WENT_BACK: Final = (
    "commits are gone, as after a failover to a standby that lacked them; a restart goes on from what is there"
)
_UNKNOWN: Final = "whether the last batch was committed cannot be told; a restart goes on from what is there"


class StateDatabase:
    """See `Place`."""

    durable: bool = True
    cure: str = "restore the schema from a backup, or drop it to start anew"

    def __init__(
        self,
        where: str,
        connect: Callable[[], Any],
        *,
        schema: str,
        holder: str,
        lease: float,
        patience: float = 2.0,
        must_exist: bool = False,
    ) -> None:
        """Take the lease, and make the schema on first start.

        Args:
            where: the database, without a password, for messages.
            connect: opens a connection of psycopg that prepares nothing, so that a pooler may stand between.
            schema: whose tables are the ledger's.
            holder: who this is, to be told to others that want the lease.
            lease: seconds for which it lasts since it was renewed.
            patience: leases to wait for that of another to end, but no longer than half a minute.
            must_exist: whether a database without a state is refused instead of being made one.

        Raises:
            StateRefused: another has the lease, or the schema is somebody else's.
            StateError: the database cannot be used just now.

        """
        self.schema: str | None = schema
        self._where = f"{where}, schema {schema}"
        self._begin = f'SET LOCAL search_path TO "{schema}"; {_LIMITS}'
        self._lease = lease
        self._token = 0
        self._commits = 0
        """commits of all owners so far, as far as they are known to be done"""
        self._lost = ""
        """why this process may not go on; '' while it may"""
        self.engine = sa.create_engine(
            "postgresql+psycopg://", creator=connect, paramstyle="format", pool_size=1, max_overflow=0, pool_timeout=2
        )
        try:
            self._prepare(must_exist=must_exist)
            self._acquire(holder, min(patience * lease, _PATIENCE))
        except sa.exc.DBAPIError as error:
            self.engine.dispose()
            raise self.explain(error, started=False) from error
        except BaseException:
            self.engine.dispose()
            raise

    def __str__(self) -> str:
        return f"state {self._where}"

    def _prepare(self, *, must_exist: bool) -> None:
        """Make the schema and the row of the lease, unless it is somebody else's."""
        with self.engine.begin() as connection:
            encoding = connection.execute(sa.text("SHOW server_encoding")).scalar()
            if encoding != "UTF8":
                raise StateRefused(f"{self}: the database is encoded in {encoding}; it must be one in UTF8")
            tables_there = set(connection.execute(sa.text(_TABLES), {"schema": self.schema}).scalars())
            if must_exist and tables.meta.name not in tables_there:
                raise StateRefused(f"{self}: there is no state")
            known = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
            if connection.execute(known, {"schema": self.schema}).first() is None:
                connection.execute(sa.schema.CreateSchema(self.schema))  # type: ignore[arg-type]
            _send(connection, self._begin)
            if tables.meta.name in tables_there:
                self.version(connection)
            elif tables_there - {"lease"}:
                raise self._not_ours()
            _send(connection, _LEASE_TABLE)

    def _not_ours(self) -> StateRefused:
        return StateRefused(f"{self}: there are tables of somebody else; it was left as it is: name another schema")

    def _acquire(self, holder: str, patience: float) -> None:
        deadline = time.monotonic() + patience
        other = "which does not answer"
        while True:
            try:
                with self.engine.begin() as connection:
                    _send(connection, self._begin)
                    row = connection.execute(sa.text(_ACQUIRE), {"holder": holder, "seconds": self._lease}).first()
                    if row is not None:
                        self._token, self._commits = row
                        return
                    other = str(connection.execute(sa.text("SELECT holder FROM lease")).scalar())
            except sa.exc.OperationalError as error:
                if getattr(error.orig, "sqlstate", None) != _LOCKED:
                    raise
            if time.monotonic() > deadline:
                raise StateRefused(
                    f"{self}: another agentos-exporter ({other}) is using it; stop that one, or name another schema"
                )
            time.sleep(_PAUSE)

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[sa.Connection]:
        """See Place."""
        if self._lost:
            raise StateRefused(f"{self}: {self._lost}")
        with self.engine.connect() as connection, connection.begin() as transaction:
            _send(connection, self._begin)
            commits = self._hold(connection) if write else self._commits
            yield connection
            if write:
                self._commit(connection, transaction, commits)

    def _hold(self, connection: sa.Connection) -> int:
        """Lock the lease for this transaction, and count it; returns the count that its commit makes."""
        mine = {"seconds": self._lease, "token": self._token, "commits": self._commits}
        commits = connection.execute(sa.text(_RENEW), mine).scalar()
        if commits is None:
            row = connection.execute(sa.text(_FOUND)).first()
            raise self._lose(_WENT_BACK if row is not None and row.token == self._token else _TAKEN)
        return int(commits)

    def _lose(self, why: str) -> StateRefused:
        """Go on no more."""
        self._lost = why
        return StateRefused(f"{self}: {why}")

    def _commit(self, connection: sa.Connection, transaction: sa.RootTransaction, commits: int) -> None:
        """Commit, and where that fails, find out whether it was done.

        To take what is committed for not committed would count it in the state and not in memory.
        """
        try:
            transaction.commit()
        except sa.exc.DBAPIError as error:
            if not connection.invalidated:
                connection.invalidate()
            try:
                done = self._was_committed(commits)
            except StateRefused as lost:
                raise lost from error
            except Exception as other:
                raise self._lose(_UNKNOWN) from other
            if not done:
                raise
        self._commits = commits

    def _was_committed(self, commits: int) -> bool:
        """Raises StateRefused where it cannot be told, or does not matter any more."""
        deadline = time.monotonic() + _UNCERTAIN
        while time.monotonic() < deadline:
            with contextlib.suppress(sa.exc.DBAPIError), self.engine.begin() as connection:
                _send(connection, self._begin)
                # Locked, it cannot be counted behind our back any more by the transaction that broke.
                token, there = connection.execute(sa.text(f"{_FOUND} FOR UPDATE")).one()
                if token != self._token:
                    raise self._lose(_TAKEN)
                if there not in {commits, self._commits}:
                    raise self._lose(_WENT_BACK)
                return bool(there == commits)
            time.sleep(_PAUSE)
        raise self._lose(_UNKNOWN)

    def renew(self) -> None:
        """See Place."""
        with self.transaction(write=True):
            pass

    def version(self, connection: sa.Connection) -> int:
        """See Place. Raises StateRefused for a later schema version, or tables of somebody else."""
        known = sa.inspect(connection).get_table_names(schema=self.schema)
        if tables.meta.name not in known:
            return 0
        columns = {column["name"] for column in sa.inspect(connection).get_columns("meta", schema=self.schema)}
        if columns != {"key", "value"}:
            raise self._not_ours()
        found = {row.key: row.value for row in connection.execute(sa.select(tables.meta))}
        if found.get("format") != tables.FORMAT or not found.get("version", "").isdigit():
            raise self._not_ours()
        version = int(found["version"])
        if version > tables.SCHEMA_VERSION:
            raise StateRefused(
                f"{self}: of a later schema ({version}) than this version knows ({tables.SCHEMA_VERSION}); "
                "upgrade agentos-exporter, or name another schema to start anew"
            )
        return version

    def set_version(self, connection: sa.Connection) -> None:
        """See Place."""
        meta = tables.meta
        connection.execute(sa.delete(meta).where(meta.c.key == "version"))
        connection.execute(sa.insert(meta).values(key="version", value=str(tables.SCHEMA_VERSION)))

    def explain(self, error: Exception, *, started: bool) -> StateError:
        """See Place."""
        reason = " ".join(str(error.orig if isinstance(error, sa.exc.DBAPIError) else error).split())[:500]
        return StateError(
            f"{self}: {reason}" + ("; nothing was lost, and polling goes on from here" if started else "")
        )

    def close(self) -> None:
        """See Place. The next process need not wait for the end of the lease."""
        if self._token:
            with contextlib.suppress(sa.exc.SQLAlchemyError), self.engine.begin() as connection:
                _send(connection, self._begin)
                connection.execute(sa.text(_RELEASE), {"token": self._token})
            self._token = 0
        self.engine.dispose()


def _send(connection: sa.Connection, text: str) -> None:
    """Send statements without parameters, several in one message."""
    connection.exec_driver_sql(text, execution_options={"no_parameters": True})
