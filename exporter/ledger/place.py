"""Where a ledger lies: what a file of SQLite and a schema of PostgreSQL have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import sqlalchemy as sa

    from exporter.core.errors import StateError


class Place(Protocol):
    """A database that is open, and belongs to this process alone. Its text names it in messages.

    Attributes:
        engine: SQLAlchemy's.
        durable: Whether what is committed survives the process.
        cure: What to do where it is broken, as the end of a message.
        schema: The schema of the tables, None where there are no schemas.

    """

    engine: sa.Engine
    durable: bool
    cure: str
    schema: str | None

    def transaction(self, *, write: bool) -> AbstractContextManager[sa.Connection]:
        """Begin a transaction; it is committed at the end, or rolled back where something is raised.

        One that is to `write` fails with StateRefused once the place belongs to another process.
        """

    def renew(self) -> None:
        """Go on owning the place. Raises StateRefused where it belongs to another process by now, or StateError."""

    def version(self, connection: sa.Connection) -> int:
        """The schema version of the tables; 0 where there are none."""

    def set_version(self, connection: sa.Connection) -> None:
        """Note that the tables are of this program's schema version."""

    def explain(self, error: Exception, *, started: bool) -> StateError:
        """What an error of the driver means, and the cure; `started`: the place was in use already."""

    def close(self) -> None:
        """Let go of it; closing twice is harmless."""
