"""The interface of a ledger's database, which a SQLite file and a PostgreSQL schema implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    import sqlalchemy as sa

    from exporter.core.errors import StateError
    from exporter.ledger.leases import Election, Lease, Leases


class Place(Protocol):
    """A database that is open. Its text names it in messages.

    Attributes:
        engine: SQLAlchemy's.
        durable: Whether what is committed survives the process.
        cure: What to do where it is broken, as the end of a message.
        schema: The schema of the tables, None where there are no schemas.
        leases: What of it is this process's; None where all of it is.

    """

    engine: sa.Engine
    durable: bool
    cure: str
    schema: str | None
    leases: Leases | None

    def transaction(
        self, *, write: bool, agentos: str | None, lease: Lease | None
    ) -> AbstractContextManager[sa.Connection]:
        """Begin a transaction. It is committed at the end, and rolled back after an exception.

        Args:
            write: Whether it writes.
            agentos: The AgentOS that it writes for; None for what all share.
            lease: The lease under which its changes were worked out.

        Raises:
            StateRefused: This process does not lead the AgentOS, or under another lease.

        """

    def elect(self, wanted: Collection[str], mark: str) -> Election:
        """Renew the leases of this process, and take free ones of `wanted`.

        Raises StateRefused if the state has another `mark` by now: another version writes it.
        """

    def release(self, names: Collection[str]) -> None:
        """Make these AgentOS instances free for other processes."""

    def fence(self, connection: sa.Connection) -> None:
        """Keep other processes from writing under their present leases: the tables change."""

    def version(self, connection: sa.Connection) -> int:
        """The schema version of the tables; 0 if there are none."""

    def set_version(self, connection: sa.Connection) -> None:
        """Note that the tables are of this program's schema version."""

    def explain(self, error: Exception, *, started: bool) -> StateError:
        """What an error of the driver means, and the cure; `started`: the place was in use already."""

    def break_off(self, *, for_good: bool) -> None:
        """Break the connection, so that threads that wait for the database fail now."""

    def close(self) -> None:
        """Close the database; closing twice is harmless."""
