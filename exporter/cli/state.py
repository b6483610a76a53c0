"""`agentos-exporter state copy FROM TO`: a state moves from a file into PostgreSQL, or back."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from cyclopts import App

from exporter.config import SharedState, parse_state
from exporter.core.document import RefusedError
from exporter.core.errors import ExporterError
from exporter.core.logs import complain

OK = 0
FAILED = 1

app = App(name="state", help="Move the state of a daemon.")


@app.command
def copy(source: str, target: str, /, *, schema: str | None = None) -> int:
    """Copy a state, whole, to a place that was never used: the path of a file, or the URL of a PostgreSQL database.

    No daemon may use either of them. A password is read as libpq does it, from PGPASSWORD, PGPASSFILE or ~/.pgpass.
    A state file of an earlier version is brought to this one, FROM too.

    Parameters
    ----------
    source: path or URL of the state, called FROM
    target: path or URL of the copy, called TO
    schema: of the state in PostgreSQL; default: agentos_exporter

    """
    from exporter.ledger import copying  # noqa: PLC0415
    from exporter.service.connect import open_ledger  # noqa: PLC0415

    try:
        with contextlib.ExitStack() as stack:
            ledgers = []
            for name, text in (("FROM", source), ("TO", target)):
                ledger = open_ledger(_place(name, text, schema), whole=True, must_exist=name == "FROM")
                stack.callback(ledger.close)
                ledgers.append(ledger)
                if ledger.begun_anew:
                    metrics = ", ".join(ledger.begun_anew)
                    complain(
                        f"{name}: labels, buckets or unit of these changed, their series are dropped: {metrics}",
                        "warning",
                    )
            for table, rows in copying.copy(*ledgers).items():
                sys.stdout.write(f"{table:12} {rows}\n")
    except (ExporterError, RefusedError) as error:
        complain(str(error))
        return FAILED
    return OK


def _place(name: str, text: str, schema: str | None) -> Path | SharedState:
    """Raises RefusedError."""
    try:
        place = parse_state(Path.cwd(), schema)(text)
    except RefusedError as error:
        raise RefusedError(f"{name}: {error}") from None
    if place is None:
        raise RefusedError(f"{name}: memory cannot be copied")
    return place
