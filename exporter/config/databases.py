"""`database` of an AgentOS: the databases that are read instead of its API."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from exporter.config.secrets import Secret
from exporter.config.settings import Database
from exporter.config.values import parse_identifier
from exporter.core.document import RefusedError, Table, attempt, scalar
from exporter.sources.database import location

if TYPE_CHECKING:
    from exporter.config.access import Access

_TABLES: Final = tuple(table.name for table in fields(location.Tables))
DATABASE_KEYS: Final = ("schema", "password_file", "password_env", *_TABLES)
"""Keys that may be given beside `database`."""
_DATABASE: Final = ("url", *DATABASE_KEYS)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several databases may share."""

    schema: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    password: Secret | None = None
    tables: Mapping[str, str] = field(default_factory=dict)


def read_databases(entry: Table, node: yaml.Node | None, access: Access) -> tuple[Database, ...]:
    """The databases of an AgentOS.

    Args:
        entry: The entry of the AgentOS; its keys hold for all databases that do not have the key themselves.
        node: The value of `database`: one URL, or a list of URLs and mappings.
        access: Reads passwords.

    """
    if node is None:
        for key in DATABASE_KEYS:
            if key in entry.entries:
                entry.add(key, "makes no sense without database")
        return ()
    if isinstance(node, yaml.SequenceNode):
        if not node.value:
            entry.add("database", "is empty; name a database")
        parts = [(f"{entry.where('database')}[{i}]", entry_node) for i, entry_node in enumerate(node.value)]
    else:
        parts = [(entry.where("database"), node)]
    shared = _shared_of(entry, access)
    databases: list[Database] = []
    for where, entry_node in parts:
        database = _database(
            entry, where, entry_node, shared, access, {database.location.key for database in databases}
        )
        if database is not None:
            databases.append(database)
    return tuple(databases)


def _database(
    entry: Table, where: str, node: yaml.Node, shared: _Shared, access: Access, known: set[str]
) -> Database | None:
    """One database: its URL, or a mapping with the URL and further keys."""
    if isinstance(node, yaml.MappingNode):
        table = entry.nested(node, where, _DATABASE)
        if "url" not in table.entries:
            table.add("url", "is missing; it is the URL of the database")
            return None
        shared, node, where = _shared_of(table, access, shared), table.entries["url"], table.where("url")
    text = scalar(node, where, entry.problems)
    parse = functools.partial(_location, base=access.base, shared=shared)
    place = None if text is None else attempt(parse, text, where, entry.problems, node)
    if place is None:
        return None
    if place.key in known:
        entry.problems.add(where, "is given twice", node)
    return Database(place, shared.password, shared.password_file, shared.password_env)


def _location(text: str, base: Path, shared: _Shared) -> location.Location:
    try:
        place = location.parse(text, base, shared.schema, location.Tables.named(shared.tables))
    except ValueError as error:
        raise RefusedError(str(error)) from None
    if place.engine is location.Engine.SQLITE:
        for key in ("schema", "password_file", "password_env"):
            if getattr(shared, key) is not None:
                raise RefusedError(f"is a file, which has no {key}; remove it")
    return place


def _shared_of(table: Table, access: Access, outer: _Shared | None = None) -> _Shared:
    """The keys beside a URL; missing ones are taken from `outer`."""
    outer = outer or _Shared()
    schema = table.parsed("schema", parse_identifier)
    tables = {key: name for key in _TABLES if (name := table.parsed(key, parse_identifier)) is not None}
    path, env, password = access.secret(table, "password")
    if {"password_file", "password_env"}.isdisjoint(table.entries):
        path, env, password = outer.password_file, outer.password_env, outer.password
    return _Shared(schema or outer.schema, path, env, password, {**outer.tables, **tables})
