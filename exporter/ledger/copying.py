"""A ledger moves to another place, whole."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from exporter.core.errors import StateRefused
from exporter.ledger import tables
from exporter.ledger.store import Ledger

_ROWS: Final = 1000


def copy(source: Ledger, target: Ledger) -> dict[str, int]:
    """Copy all rows, in one transaction each; return how many, by table.

    Raises:
        StateRefused: The target is not empty; nothing was written.
        StateError: One of them cannot be read or written just now; nothing was written.

    """
    copied: dict[str, int] = {}
    # The source is held as well: nobody must write to it meanwhile.
    with source.transaction(write=True) as of, target.transaction(write=True) as into:
        for table in tables.schema.sorted_tables:
            if table is tables.layouts:
                continue  # each has its own
            there = sa.select(table).limit(1)
            if table is tables.meta:
                there = there.where(table.c.key.not_in(tables.OWN_META))
            if into.execute(there).first() is not None:
                raise StateRefused(f"{target}: is not empty; name one that was never used")
        for table in tables.schema.sorted_tables:
            if table is tables.layouts:
                continue
            rows = of.execute(sa.select(table)).mappings()
            copied[table.name] = 0
            while some := [dict(row) for row in rows.fetchmany(_ROWS)]:
                if table is tables.meta:
                    some = [row for row in some if row["key"] not in tables.OWN_META]
                if some:
                    into.execute(sa.insert(table), some)
                copied[table.name] += len(some)
    return copied
