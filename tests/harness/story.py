"""A short story of runs in two databases, told row by row: what is written when, and what it must add up to.

It has all that makes counting after a crash hard: history in more than one page, traces that are open for a while,
spans that come late, one whose parent never comes, a trace that stands in both databases, and a time without polls.
Times are in seconds since `T0`. Nothing of the exporter is imported here.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

T0 = 1_790_000_000
DATABASES = ("main", "second")
STEPS = (0, 15, 45, 75, 150, 350, 1200, 3300)
"""When the exporter polls. From 350 to 1200, and later once more, it does not run or AgentOS cannot be reached."""
QUIET = 3650
"""By then all has been told, and nothing is waited for."""
IDLE = 1200
"""A session is idle by then if its last run ended before."""
PRICES = {"prompt": 3, "completion": 5}
"""of a token, in 10**-18 USD"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DDL = """
CREATE TABLE agno_traces (trace_id VARCHAR PRIMARY KEY, created_at VARCHAR NOT NULL);
CREATE TABLE agno_spans (
  span_id VARCHAR NOT NULL PRIMARY KEY, trace_id VARCHAR NOT NULL, parent_span_id VARCHAR, name VARCHAR NOT NULL,
  span_kind VARCHAR NOT NULL, status_code VARCHAR NOT NULL, status_message VARCHAR, start_time VARCHAR NOT NULL,
  end_time VARCHAR NOT NULL, duration_ms BIGINT NOT NULL, attributes JSON, created_at VARCHAR NOT NULL);
CREATE INDEX spans_trace ON agno_spans (trace_id);
CREATE INDEX spans_created ON agno_spans (created_at);
"""


def us(seconds: float) -> int:
    """Return a time of the story in microseconds since the epoch."""
    return round((T0 + seconds) * 1_000_000)


def stamp(seconds: float) -> str:
    """Return it as agno writes it."""
    return (_EPOCH + timedelta(microseconds=us(seconds))).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class Row:
    """A span and when it is written. `kind` is OpenInference's; an LLM span has `tokens`, prompt and completion."""

    db: str
    trace: str
    id: str
    parent: str | None
    kind: str
    name: str
    start: float
    end: float
    written: float
    session: str
    tokens: tuple[int, int] = (0, 0)
    error: str | None = None

    @property
    def number(self) -> int:
        """Return the id as the ledger has it."""
        return int(self.id, 16)


class _Teller:
    """Makes rows; each run gets ids of its own."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._runs = 0

    def run(
        self, db: str, end: float, *, agent: str = "Clerk", calls: int = 2, session: str | None = None
    ) -> list[Row]:
        """Tell of an agent's run with model calls and one of a tool, written as it ends."""
        self._runs += 1
        trace = f"{self._runs:032x}"
        session = session or f"session {self._runs}"
        root = Row(db, trace, f"{self._runs * 256:016x}", None, "AGENT", f"{agent}.arun", end - 5, end, end, session)
        rows = [root]
        for call in range(calls):
            at = end - 4 + call
            row = replace(root, id=f"{self._runs * 256 + call + 1:016x}", parent=root.id, start=at, end=at + 0.5)
            failed = "BoomError: no" if self._runs % 4 == 0 and call == 0 else None
            tokens = (self._runs * 100 + call, 7 + call)
            rows.append(replace(row, kind="LLM", name="OpenAIChat.ainvoke", tokens=tokens, error=failed))
        tool = replace(root, id=f"{self._runs * 256 + 255:016x}", parent=root.id, start=end - 1, end=end - 0.5)
        rows.append(replace(tool, kind="TOOL", name="search"))
        self.rows += rows
        return rows

    def late(self, row: Row, written: float) -> None:
        """Let a row be written later."""
        self.rows[self.rows.index(row)] = replace(row, written=written)


@functools.cache
def rows() -> Sequence[Row]:
    """Return the rows of the story in the order in which they are written."""
    tell = _Teller()
    for end in (-1500, -900, -600, -420, -300, -250):
        tell.run("main", end, calls=1)
    for end in (-800, -200):
        tell.run("second", end, agent="Scout")
    tell.run("main", 8, session="session 1")
    root, *_ = tell.run("second", 12, agent="Scout")  # open until its root is written
    tell.late(root, 37)
    _, _, call, _ = tell.run("main", 20, agent="Writer")  # complete, and grows
    tell.late(call, 58)
    root, call, *_ = tell.run("main", 25, calls=1)  # its root never comes
    tell.rows.remove(root)
    both = tell.run("main", 140, agent="Scout")
    tell.rows.remove(both[-1])
    tell.rows += [replace(row, db="second", written=row.written + 2) for row in both]
    for db, end in (("main", 500), ("second", 640), ("main", 700), ("main", 705), ("second", 710), ("main", 1000)):
        tell.run(db, end)
    for db, end in (("main", 3000), ("second", 3000)):
        tell.run(db, end, agent="Scout")
    return sorted(tell.rows, key=lambda row: row.written)


def hidden() -> set[str]:
    """Return the ids of spans whose parent never comes."""
    ids = {row.id for row in rows()}
    return {row.id for row in rows() if row.parent is not None and row.parent not in ids}


def spans(*, orphans: bool) -> dict[int, Row]:
    """Return each span once, by its number; `orphans` says whether those count whose parent never comes."""
    return {row.number: row for row in rows() if orphans or row.id not in hidden()}


def cost(counted: Iterator[Row] | Sequence[Row]) -> int:
    """Return what the calls among these spans cost, in 10**-18 USD."""
    return sum(row.tokens[0] * PRICES["prompt"] + row.tokens[1] * PRICES["completion"] for row in counted)


def path(folder: Path, db: str) -> Path:
    """Return where a database lies."""
    return folder / f"{db}.db"


class Tables:
    """The databases as files with agno's tables, at a time of the story that may also be turned back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._until = float("-inf")
        self._connections = {db: sqlite3.connect(path(folder, db), isolation_level=None) for db in DATABASES}
        for connection in self._connections.values():
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(_DDL)

    def close(self) -> None:
        """Close the files."""
        for connection in self._connections.values():
            connection.close()

    def turn(self, now: float) -> None:
        """Let them hold what is written by now, and nothing else."""
        for db, connection in self._connections.items():
            if now < self._until:
                connection.execute("DELETE FROM agno_spans WHERE created_at > ?", (stamp(now),))
                connection.execute("DELETE FROM agno_traces WHERE created_at > ?", (stamp(now),))
            new = [row for row in rows() if row.db == db and self._until < row.written <= now]
            if new:
                connection.execute("BEGIN")
                traces = [(row.trace, stamp(row.written)) for row in new]
                connection.executemany("INSERT OR IGNORE INTO agno_traces VALUES (?, ?)", traces)
                marks = ", ".join("?" * 12)
                connection.executemany(f"INSERT INTO agno_spans VALUES ({marks})", map(_columns, new))
                connection.execute("COMMIT")
        self._until = now


def _columns(row: Row) -> tuple[object, ...]:
    attributes: dict[str, object] = {"openinference.span.kind": row.kind, "session.id": row.session}
    if row.kind == "LLM":
        attributes |= {"llm.model_name": "gpt-5.4-mini", "llm.provider": "OpenAI"}
        for name, tokens in zip(PRICES, row.tokens, strict=True):
            attributes[f"llm.token_count.{name}"] = tokens
    status = ("OK", None) if row.error is None else ("ERROR", row.error)
    times = (stamp(row.start), stamp(row.end), round(1000 * (row.end - row.start)))
    what = (row.id, row.trace, row.parent, row.name, "INTERNAL", *status)
    return (*what, *times, json.dumps(attributes), stamp(row.written))
