"""A ledger moves to another place, whole."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from exporter.core.errors import StateRefused
from exporter.ledger import tables
from exporter.ledger.store import Ledger

_ROWS: Final = 1000
_CONTENT: Final = {table: sa.select(table) for table in tables.schema.sorted_tables if table is not tables.layouts}
"""The copied rows, by table. Each database has its own layouts, and its own description of its tables."""
_CONTENT[tables.meta] = _CONTENT[tables.meta].where(tables.meta.c.key.not_in(tables.OWN_META))


def copy(source: Ledger, target: Ledger) -> dict[str, int]:
    """Copy all rows, in one transaction each; return how many, by table.

    Raises:
        StateRefused: The target is not empty; nothing was written.
        StateError: One of them cannot be read or written just now; nothing was written.

    """
    copied: dict[str, int] = {}
    # The source is locked as well: no other process may write to it during the copy.
    with source.transaction(write=True) as of, target.transaction(write=True) as into:
        if any(into.execute(rows.limit(1)).first() is not None for rows in _CONTENT.values()):
            raise StateRefused(f"{target}: is not empty; name one that was never used")
        for table, query in _CONTENT.items():
            rows = of.execute(query).mappings()
            copied[table.name] = 0
            while some := [dict(row) for row in rows.fetchmany(_ROWS)]:
                into.execute(sa.insert(table), some)
                copied[table.name] += len(some)
    return copied
