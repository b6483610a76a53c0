"""`agentos` of the configuration: the AgentOS instances that are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import yaml

from exporter.config.databases import DATABASE_KEYS, read_databases
from exporter.config.settings import AgentOS
from exporter.config.values import NAME, parse_db_id, parse_name, parse_switch, parse_url
from exporter.core.document import Table, attempt, is_null, quoted, scalar

if TYPE_CHECKING:
    from exporter.config.access import Access

API_KEYS: Final = ("token_file", "token_env", "db_ids", "tls", "proxy_url")
"""Keys for reading the API of an AgentOS."""
_EXAMPLE: Final = "[{name: prod, url: https://agentos.example.com}]"
_INSTANCE: Final = ("name", "url", *API_KEYS, "enrich_runs", "database", *DATABASE_KEYS)


@dataclass(slots=True)
class Instances:
    """The list of AgentOS instances of a configuration.

    Attributes:
        read: Those without a mistake; None where there is no list, or an empty one.
        names: The names of all, those of refused ones too, with their places in the list.
        warnings: What is allowed, and probably not meant.

    """

    read: tuple[AgentOS, ...] | None = None
    names: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_instances(table: Table, access: Access) -> Instances:
    """The AgentOS instances of a configuration; mistakes are problems of the table."""
    instances = Instances()
    read: list[tuple[int, AgentOS]] = []
    names = instances.names
    for place, entry in table.mappings("agentos", _EXAMPLE, _INSTANCE, "with name and url"):
        agentos = _instance(entry, access)
        name = entry.entries.get("name")
        if isinstance(name, yaml.ScalarNode) and NAME.fullmatch(name.value):
            if name.value in names:
                entry.add("name", f"{quoted(name.value)} is already the name of agentos[{names[name.value]}]")
            names.setdefault(name.value, place)
        if agentos is None:
            continue
        instances.warnings += [
            f"{entry.path}: reads the same databases as agentos[{other}]; their traces count under both names"
            for other, earlier in read
            if _share_databases(agentos, earlier)
        ]
        read.append((place, agentos))
    node = table.entries.get("agentos")
    if node is not None and not (isinstance(node, yaml.SequenceNode) and not node.value):
        instances.read = tuple(agentos for _, agentos in read)
    return instances


def _share_databases(agentos: AgentOS, other: AgentOS) -> bool:
    keys = {database.location.key for database in agentos.databases}
    if not keys.isdisjoint(database.location.key for database in other.databases):
        return True
    if not agentos.url or agentos.url != other.url:
        return False
    return agentos.db_ids is None or other.db_ids is None or not set(agentos.db_ids).isdisjoint(other.db_ids)


def _instance(entry: Table, access: Access) -> AgentOS | None:
    name = entry.parsed("name", parse_name)
    if "name" not in entry.entries:
        entry.add("name", "is missing; it becomes the value of the label agentos")
    url = entry.parsed("url", parse_url)
    enrich_runs = entry.parsed("enrich_runs", parse_switch) or False
    database = entry.entries.get("database")
    if database is not None and is_null(database):
        database = None
    if "url" in entry.entries and database is not None:
        entry.add("database", "give url or database, not both")
    elif "url" not in entry.entries and database is None:
        entry.add("url", "is missing; it is the base URL of the AgentOS")
    token_file, token_env, secret = access.secret(entry, "token")
    db_ids = read_db_ids(entry)
    tls = access.tls(entry, url)
    databases = read_databases(entry, database, access)
    if database is not None:
        _only_with_url(entry)
        if name is None or not databases:
            return None
        return AgentOS(name, "", enrich_runs=enrich_runs, databases=databases)
    if name is None or url is None:
        return None
    proxy = access.proxy(entry, url)
    return AgentOS(name, url, secret, token_file, token_env, db_ids, tls, enrich_runs, proxy=proxy)


def _only_with_url(entry: Table) -> None:
    for key in API_KEYS:
        if key in entry.entries and "url" not in entry.entries:
            entry.add(key, "makes no sense with database: it belongs to url")


def read_db_ids(entry: Table) -> tuple[str, ...] | None:
    """The ids of the databases to read; None for all of them."""
    nodes = entry.items("db_ids", "[main]")
    if nodes is None:
        return None
    if not nodes:
        entry.add("db_ids", "is empty; remove it to read all databases")
    ids: list[str] = []
    for i, node in enumerate(nodes):
        where = f"{entry.where('db_ids')}[{i}]"
        text = scalar(node, where, entry.problems)
        value = None if text is None else attempt(parse_db_id, text, where, entry.problems, node)
        if value in ids:
            entry.problems.add(where, f"{quoted(str(value))} is given twice", node)
        elif value is not None:
            ids.append(value)
    return tuple(ids)
