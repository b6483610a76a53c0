"""A ledger in a schema of PostgreSQL, which several processes may share: see `leases`."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
import sqlalchemy as sa

from exporter.core.errors import StateError, StateRefused
from exporter.ledger import tables
from exporter.ledger.leases import MAKE_TABLES, TABLES, WHOLE, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from exporter.ledger.leases import Election, Lease, Leases

_UNCERTAIN: Final = 30.0
"""Seconds of trying to find out whether a commit was done during which the connection broke."""
_PAUSE: Final = 0.5
_LOCKED: Final = "55P03"
"""SQLSTATE of a lock that was not to be had in time."""
_LIMITS: Final = (
    "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '5s'; "
    # The server ends the transaction of a process that vanished, and with it the hold on the lease.
    "SET LOCAL idle_in_transaction_session_timeout = '30s'"
)
_TABLES: Final = """
SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = :schema AND relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_TAKEN: Final = "its lease is lost: another replica took it over, or commits are gone, as after a failover"
_UNKNOWN: Final = "its lease is given up: whether the last batch was committed cannot be told now"


class StateDatabase:
    """See `Place`."""

    durable: bool = True
    cure: str = "restore the schema from a backup, or drop it to start anew"

    def __init__(
        self,
        where: str,
        connect: Callable[[], psycopg.Connection[Any]],
        leases: Leases,
        *,
        schema: str,
        whole: bool = False,
        must_exist: bool = False,
    ) -> None:
        """Make the schema on first start.

        Args:
            where: the database, without a password, for messages.
            connect: opens a connection of psycopg that prepares nothing, so that a pooler may stand between.
            leases: those of this process.
            schema: whose tables are the ledger's.
            whole: whether the state is to belong to this process alone, rather than an AgentOS at a time.
            must_exist: whether a database without a state is refused instead of being made one.

        Raises:
            StateRefused: another uses the state that is wanted whole, or the schema is somebody else's.
            StateError: the database cannot be used just now.

        """
        self.schema: str | None = schema
        self.leases: Leases | None = leases
        self._leases = leases
        self._whole = whole
        self._where = f"{where}, schema {schema}"
        self._begin = f'SET LOCAL search_path TO "{schema}"; {_LIMITS}'
        self._connection: psycopg.Connection[Any] | None = None
        self._ending = False
        self.engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=functools.partial(self._connect, connect),
            paramstyle="format",
            pool_size=1,
            max_overflow=0,
            pool_timeout=2,
        )
        try:
            self._prepare(must_exist=must_exist)
            if whole:
                self._own()
        except sa.exc.DBAPIError as error:
            self.engine.dispose()
            raise self.explain(error, started=False) from error
        except BaseException:
            self.engine.dispose()
            raise

    def __str__(self) -> str:
        return f"state {self._where}"

    def _prepare(self, *, must_exist: bool) -> None:
        """Create the schema and the tables of leases. A schema with foreign tables is refused."""
        with self.engine.begin() as connection:
            encoding = connection.execute(sa.text("SHOW server_encoding")).scalar()
            if encoding != "UTF8":
                raise StateRefused(f"{self}: the database is encoded in {encoding}; it must be one in UTF8")
            _send(connection, self._begin)
            # Processes that start together make the schema once.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": tables.APPLICATION_ID})
            tables_there = set(connection.execute(sa.text(_TABLES), {"schema": self.schema}).scalars())
            if must_exist and tables.meta.name not in tables_there:
                raise StateRefused(f"{self}: there is no state")
            schema_exists = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema")
            if connection.execute(schema_exists, {"schema": self.schema}).first() is None:
                connection.execute(sa.schema.CreateSchema(self.schema))  # type: ignore[arg-type]
            if tables.meta.name in tables_there:
                self.version(connection)
            elif tables_there - TABLES:
                raise self._not_ours()
            for statement in MAKE_TABLES:
                _send(connection, statement)

    def _not_ours(self) -> StateRefused:
        return StateRefused(f"{self}: there are tables of somebody else; it was left as it is: name another schema")

    def _own(self) -> None:
        """Make the whole state this process's. Raises StateRefused."""
        began = self._leases.now()
        other = "which does not answer"
        try:
            with self.engine.begin() as connection:
                _send(connection, self._begin)
                other, lease = self._leases.own(connection)
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCKED:
                raise
            lease = None
        if lease is None:
            raise self._in_use(other)
        self._leases.elected({}, {WHOLE: lease}, began)

    def _in_use(self, other: str) -> StateRefused:
        return StateRefused(
            f"{self}: another agentos-exporter ({other}) is using it; stop that one, or name another schema"
        )

    @contextlib.contextmanager
    def transaction(self, *, write: bool, agentos: str | None, lease: Lease | None) -> Iterator[sa.Connection]:
        """See Place."""
        row = WHOLE if self._whole else None if agentos is None else row_of(agentos)
        with self.engine.connect() as connection, connection.begin() as transaction:
            _send(connection, self._begin)
            held = None
            if write and row is not None:
                held = self._hold(connection, row, lease)
            elif write:
                self._leases.serialise(connection)
                if (owner := self._leases.owner(connection)) is not None:
                    raise self._in_use(owner)
            yield connection
            if row is not None and held is not None:
                self._commit(connection, transaction, row, held)

    def _hold(self, connection: sa.Connection, row: str, lease: Lease | None) -> Lease:
        held = self._leases.find(row)
        if lease is not None and lease is not held:
            raise StateRefused(f"{self}: {_TAKEN}")  # another lease may be held by now
        if held is None or not self._leases.hold(connection, row, held):
            raise self._forget_lease(row, _TAKEN)
        return held

    def _forget_lease(self, row: str, why: str) -> StateRefused:
        """Stop writing under this lease; its next holder has what was committed."""
        self._leases.forget(row)
        return StateRefused(f"{self}: {why}")

    def _commit(self, connection: sa.Connection, transaction: sa.RootTransaction, row: str, lease: Lease) -> None:
        """Commit; if that fails, find out whether it was done.

        A commit that was done but is taken for failed would be counted in the state and not in memory.
        """
        try:
            transaction.commit()
        except sa.exc.DBAPIError as error:
            if not connection.invalidated:
                connection.invalidate()
            try:
                done = self._was_committed(row, lease)
            except StateRefused as lost:
                raise lost from error
            except Exception as other:
                raise self._forget_lease(row, _UNKNOWN) from other
            if not done:
                raise
        lease.commits += 1

    def _was_committed(self, row: str, lease: Lease) -> bool:
        """Raises StateRefused if that cannot be found out, or does not matter any more."""
        deadline = time.monotonic() + _UNCERTAIN
        while time.monotonic() < deadline and not self._ending:
            with contextlib.suppress(sa.exc.DBAPIError), self.engine.begin() as connection:
                _send(connection, self._begin)
                done = self._leases.was_committed(connection, row, lease)
                if done is None:
                    raise self._forget_lease(row, _TAKEN)
                return done
            time.sleep(_PAUSE)
        raise self._forget_lease(row, _UNKNOWN)

    def elect(self, wanted: Collection[str], mark: str) -> Election:
        """See Place."""
        began = self._leases.now()
        with self.engine.begin() as connection:
            _send(connection, self._begin)
            marker = sa.select(tables.meta.c.value).where(tables.meta.c.key == tables.MARK)
            if connection.execute(marker).scalar() != mark:
                raise StateRefused(f"{self}: another version of agentos-exporter has changed it; upgrade this one")
            election, renewed, won = self._leases.vote(connection, wanted)
        self._leases.elected(renewed, won, began)
        return election

    def release(self, names: Collection[str]) -> None:
        """See Place."""
        with self.engine.begin() as connection:
            _send(connection, self._begin)
            self._leases.release(connection, names)

    def fence(self, connection: sa.Connection) -> None:
        """See Place."""
        self._leases.fence(connection)

    def version(self, connection: sa.Connection) -> int:
        """See Place. Raises StateRefused for a later schema version, or for foreign tables."""
        table_names = sa.inspect(connection).get_table_names(schema=self.schema)
        if tables.meta.name not in table_names:
            return 0
        columns = {column["name"] for column in sa.inspect(connection).get_columns("meta", schema=self.schema)}
        if columns != {"key", "value"}:
            raise self._not_ours()
        meta = {row.key: row.value for row in connection.execute(sa.select(tables.meta))}
        if meta.get("format") != tables.FORMAT or not meta.get("version", "").isdigit():
            raise self._not_ours()
        version = int(meta["version"])
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

    def break_off(self, *, for_good: bool) -> None:
        """See Place."""
        self._ending = self._ending or for_good
        if (connection := self._connection) is not None:
            # A driver that waits for the server sees the end of the connection.
            with (
                contextlib.suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as same,
            ):
                same.shutdown(socket.SHUT_RDWR)

    def _connect(self, connect: Callable[[], psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
        if self._ending:
            raise psycopg.OperationalError("the daemon ends")
        self._connection = connect()
        return self._connection

    def close(self) -> None:
        """See Place. Others need not wait for the end of the leases."""
        with contextlib.suppress(sa.exc.SQLAlchemyError), self.engine.begin() as connection:
            _send(connection, self._begin)
            self._leases.leave(connection)
        self.engine.dispose()


def _send(connection: sa.Connection, text: str) -> None:
    """Send statements without parameters, several in one message."""
    connection.exec_driver_sql(text, execution_options={"no_parameters": True})
