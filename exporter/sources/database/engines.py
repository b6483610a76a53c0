"""The engines that can be read: each has a module with its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.sources.database.location import Engine, Location
from exporter.sources.database.mysql import MysqlConnection
from exporter.sources.database.postgres import PostgresConnection
from exporter.sources.database.sqlite import SqliteConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.sources.database.connection import Connection


def connection(location: Location, read_password: Callable[[], str | None]) -> Connection:
    """The connection for an engine."""
    kinds: dict[Engine, type[Connection]] = {
        Engine.SQLITE: SqliteConnection,
        Engine.POSTGRESQL: PostgresConnection,
        Engine.MYSQL: MysqlConnection,
    }
    return kinds[location.engine](location, read_password)
